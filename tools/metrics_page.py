"""The tables of `docs/metrics.md`, made of the table of instruments."""

import re
from collections.abc import Iterator
from pathlib import Path

from abstractllm_server.telemetry.instruments import ATTRIBUTES, INSTRUMENTS, Instrument, Kind
from tools.marked_parts import with_part

PAGE = Path("docs/metrics.md")
MARKS = ("<!-- The tables of metrics: written by `make generate`. -->", "<!-- End of the metrics. -->")

_UNITS = {"s": "_seconds", "By": "_bytes"}
"""The endings that units become in Prometheus; the others have none."""
_COUNTERS = (Kind.COUNTER, Kind.OBSERVED_COUNTER)
_PARTS = (
    ("Each answer", ("gen_ai.server.", "abstractllm.server.queue", "abstractllm.server.prefill")),
    ("Each answer", ("abstractllm.server.decode", "abstractllm.server.tokens")),
    ("Each call to a hosted LLM", ("gen_ai.client.",)),
    ("Each call of any method", ("rpc.", "abstractllm.server.refusals", "abstractllm.server.calls.active")),
    ("LLMs, now", ("abstractllm.llm.",)),
    ("Replicas, now", ("abstractllm.replica.",)),
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


def emit(root: Path) -> dict[Path, str]:
    """Writes the tables into their page.

    Args:
        root: The repository, whose page keeps everything outside the tables.

    Returns:
        The text of the page by its path.
    """
    return {PAGE: with_part((root / PAGE).read_text("utf-8"), MARKS, f"\n{written()}\n")}
