"""Writes the tables of `docs/metrics.md` from the table of instruments, or checks that they are up to date.

Usage: python -m tools.metrics_page [--check]
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from abstractllm_server.telemetry.instruments import ATTRIBUTES, INSTRUMENTS, Instrument, Kind

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- Written by tools/metrics_page.py. -->", "<!-- End of what is written. -->"

_UNITS = {"s": "_seconds", "By": "_bytes"}
"""The endings that units become in Prometheus; the others have none."""
_COUNTERS = (Kind.COUNTER, Kind.OBSERVED_COUNTER)
_PARTS = (
    ("Each answer", ("gen_ai.server.", "abstractllm.server.queue", "abstractllm.server.prefill")),
    ("Each answer", ("abstractllm.server.decode", "abstractllm.server.tokens")),
    ("Each call to a hosted LLM", ("gen_ai.client.",)),
    ("Each call of any method", ("rpc.", "abstractllm.server.refusals", "abstractllm.server.calls.active")),
    ("LLMs, now", ("abstractllm.llm.",)),
    ("Local models", ("abstractllm.engine.", "abstractllm.model_cache.")),
    ("The server", ("abstractllm.server.", "abstractllm.process.", "process.")),
)
"""The parts of the page, and the beginnings of the names in each; the first one that fits counts."""


def prometheus_name(instrument: Instrument) -> str:
    """Returns the name that Prometheus reads, without the endings of a histogram's series."""
    name = re.sub(r"[^a-zA-Z0-9:]+", "_", instrument.name) + _UNITS.get(instrument.unit, "")
    return name + "_total" if instrument.kind in _COUNTERS else name


def prometheus_label(attribute: str) -> str:
    """Returns the label that an attribute becomes in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", attribute)


def written() -> str:
    """Returns the tables."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    titles = dict.fromkeys(title for title, _ in _PARTS)
    for title in titles:
        yield f"### {title}\n"
        yield "| metric | in Prometheus | unit | meaning | attributes |"
        yield "|---|---|---|---|---|"
        for instrument in INSTRUMENTS.values():
            if _part(instrument) == title:
                yield _row(instrument)
        yield ""
    yield "### The attributes\n"
    yield "| attribute | in Prometheus | value |"
    yield "|---|---|---|"
    for name, meaning in ATTRIBUTES.items():
        yield f"| `{name}` | `{prometheus_label(name)}` | {meaning} |"


def _part(instrument: Instrument) -> str:
    return next(title for title, prefixes in _PARTS if instrument.name.startswith(prefixes))


def _row(instrument: Instrument) -> str:
    attributes = ", ".join(f"`{name}`" for name in instrument.attributes)
    kind = "histogram" if instrument.kind is Kind.HISTOGRAM else "counter" if instrument.kind in _COUNTERS else "gauge"
    return (
        f"| `{instrument.name}` | `{prometheus_name(instrument)}` ({kind}) | `{instrument.unit}` "
        f"| {instrument.description} | {attributes} |"
    )


def page(text: str) -> str:
    """Returns the page with new tables.

    Args:
        text: The page as it is.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written()}\n\n{END}{after}"


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description="Writes the tables of docs/metrics.md.")
    parser.add_argument("--check", action="store_true", help="fail where the page differs, and write nothing")
    text = PAGE.read_text("utf-8")
    if not parser.parse_args().check:
        PAGE.write_text(page(text), "utf-8")
    elif page(text) != text:
        sys.exit(f"differs: {PAGE.name}; run: python -m tools.metrics_page")


if __name__ == "__main__":
    main()
