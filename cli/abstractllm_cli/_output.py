"""Results and failures, written as JSON for programs and as text for people.

The JSON has the contract's shape and field names: an event or a part of a message is an object whose one key says
which it is (`{"text_delta": {"text": "Hi"}}`), times are seconds, bytes are base64, and what is not known is null.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import typer

EXIT_FAILED = 1
EXIT_BROKEN_PIPE = 141
"""The code that a shell reports for a program that SIGPIPE ended, as most programs do when their reader leaves."""

_EVENTS = {"Started", "TextDelta", "ReasoningDelta", "ToolCallDelta", "Finished"}
_PARTS = {"Text", "Image", "ToolCall", "ToolResult", "Reasoning"}
_ERROR_FIELDS = (
    "reason",
    "message",
    "retryable",
    "retry_after",
    "provider",
    "llm",
    "model",
    "upstream_status",
    "request_id",
    "field",
    "limit",
    "requested",
    "output_tokens",
    "partial_text",
)
# Text from a model is not trusted with the terminal: no control characters but line feed and tab.
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


@runtime_checkable
class Failure(Protocol):
    """The properties that the errors of the library and those of the client share."""

    @property
    def reason(self) -> str:
        """The contract's name for the reason."""

    @property
    def message(self) -> str:
        """The description for a person."""

    @property
    def retryable(self) -> bool:
        """True if the same request may succeed later."""


def kind_of(value: object) -> str:
    """Returns the contract's name for an event or a part, from its class: `text_delta` for a `TextDelta`.

    The library and the client have classes of their own, with the same names.
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower()


def to_plain(value: Any) -> Any:
    """Converts a value of the library or of the client to values that JSON has."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        name = type(value).__name__
        if name in _PARTS:
            state = fields.pop("provider_state")
            part = fields["text"] if name == "Text" else fields
            return {kind_of(value): part} | ({"provider_state": state} if state else {})
        return {kind_of(value): fields} if name in _EVENTS else fields
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def printable(text: str) -> str:
    """Returns a text without its control characters, for a terminal."""
    return text.translate(_CONTROLS)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Writes a value as JSON and a line end, at once."""
    print_text(json.dumps(to_plain(value), indent=indent, default=str) + "\n")


def print_text(text: str) -> None:
    """Writes text to the standard output, at once; on a terminal without its control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_dim(text: str) -> None:
    """Writes text to a terminal, faint."""
    sys.stdout.write(f"\x1b[2m{printable(text)}\x1b[22m")
    sys.stdout.flush()


def note(text: str) -> None:
    """Writes a line for the person at the keyboard to the standard error."""
    print(printable(text), file=sys.stderr, flush=True)  # noqa: T201


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a table: drawn on a terminal, else a line of tab-separated fields for each row, without the titles.

    On a terminal a column that is empty in all rows is left out.
    """
    if not sys.stdout.isatty():
        print_text("".join("\t".join(row) + "\n" for row in rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    used = [index for index in range(len(titles)) if any(row[index] for row in rows)]
    table = Table(*(titles[index] for index in used), box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(row[index])) for index in used))
    Console().print(table)


def print_failure(error: Failure, *, as_json: bool) -> None:
    """Writes a failure: `error: REASON: message` to the standard error, or one JSON object to the standard output."""
    if as_json:
        print_json({"error": {name: getattr(error, name, None) for name in _ERROR_FIELDS}})
    else:
        note(f"error: {error.reason}: {error.message}")


@contextmanager
def reporting(*, as_json: bool) -> Iterator[None]:
    """Ends the command with its exit code where the work inside fails, or where the reader of the output leaves."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, which must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except Exception as error:
        if not isinstance(error, Failure):
            raise
        print_failure(error, as_json=as_json)
        raise typer.Exit(EXIT_FAILED) from None


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """Shows a spinner with a message on the standard error, if that is a terminal, until the work inside is done.

    Yields:
        A function that changes the message.
    """
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(message)) as status:
        yield lambda message: status.update(Text(printable(message)))


def size(count: int | None) -> str:
    """Returns a number of bytes as a person reads it: `1.5 GiB`; empty if not known."""
    if count is None:
        return ""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
