"""Writes the table of the limits of requests into `docs/configuration.md`, or checks that it is up to date.

Usage: python -m tools.limits_page [--check]
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from abstractllm.field_limits import FIELD_LIMITS, MAX_PROVIDER_OPTIONS, MESSAGE_BYTES, FieldLimit
from tools.marked_parts import with_part

PAGE = Path("docs/configuration.md")
MARKS = ("<!-- The table of limits: written by `python -m tools.limits_page`. -->", "<!-- End of the limits. -->")


def table() -> str:
    """Returns the table: each limit with the fields that have it, by the names that errors tell."""
    fields: dict[str, list[str]] = defaultdict(list)
    for name, limit in FIELD_LIMITS.items():
        fields[_in_words(name, limit)].append(_name(name))
    rows = [f"| {', '.join(dict.fromkeys(names))} | {words} |" for words, names in fields.items()]
    return "\n".join(["| field | limit |", "|---|---|", f"| the whole message | {_bytes(MESSAGE_BYTES)} |", *rows])


def _name(name: str) -> str:
    message, _, field = name.partition(".")
    namesakes = {limit for other, limit in FIELD_LIMITS.items() if other.endswith(f"Request.{field}")}
    return f"`{field}`" if message.endswith("Request") and len(namesakes) == 1 else f"`{name}`"


def _in_words(name: str, limit: FieldLimit) -> str:
    if limit.most == MESSAGE_BYTES:
        return "as large as the message"
    if name.endswith("provider_options"):
        return f"{MAX_PROVIDER_OPTIONS} keys, {_bytes(limit.most)}"
    if name == "ChatMessage.parts":
        return f"{limit.most:,} in the whole conversation"
    if limit.unit == "seconds":
        return f"more than 0 and at most {limit.most:,} seconds"
    if not limit.unit:
        return f"0 to {limit.most:,}"
    each = f", each of up to {limit.each:,} characters" if limit.each else ""
    return f"{limit.most:,} {limit.unit}{each}"


def _bytes(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count:,} bytes"


def main() -> int:
    """Writes the table, or tells whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the page differs")
    path = Path(__file__).resolve().parents[1] / PAGE
    before = path.read_text("utf-8")
    after = with_part(before, MARKS, table())
    if parser.parse_args().check:
        return int(before != after)
    path.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
