"""The table of the limits of requests in `docs/configuration.md`."""

from collections import defaultdict
from pathlib import Path

from abstractllm.field_limits import FIELD_LIMITS, MAX_PROVIDER_OPTIONS, MESSAGE_BYTES, FieldLimit
from tools.marked_parts import with_part

PAGE = Path("docs/configuration.md")
MARKS = ("<!-- The table of limits: written by `make generate`. -->", "<!-- End of the limits. -->")


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


def emit(root: Path) -> dict[Path, str]:
    """Writes the table into its page.

    Args:
        root: The repository, whose page keeps everything outside the table.

    Returns:
        The text of the page by its path.
    """
    return {PAGE: with_part((root / PAGE).read_text("utf-8"), MARKS, table())}
