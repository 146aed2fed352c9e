"""The forms of a log record: a line of text for people, or one JSON object a line for programs.

Whatever stands in a record, and wherever it came from, it stays within its line: line ends, control characters,
escape sequences of terminals and marks that turn the direction of writing are written as escapes. The value of a field
that could be taken for more than one is quoted.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["MAX_CHARACTERS", "JsonFormatter", "StructuredMessage", "TextFormatter", "escape", "shortened"]

MAX_CHARACTERS = 65_536
"""Characters of one message, field or traceback; the rest is left out, and its length told."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+,\-]+")
_CONTINUED = "\n  | "
"""The beginning of a traceback's lines in the text form; a record begins with its time."""


def escape(text: str) -> str:
    r"""Returns a text in which everything that does not print is an escape such as `\n` or `\x1b`."""
    text = shortened(text)
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    return _ESCAPES.get(character) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


class StructuredMessage:
    """A message with named values: `text name=value name.key=value` in lines of text, a key each in JSON.

    Example:
        ```python
        logger.info(StructuredMessage("response", {"request_id": "r1", "labels": {"team": "blue"}}))
        ```

    Args:
        text: The message itself.
        fields: The values: texts, numbers, and mappings of names to such.
    """

    __slots__ = ("fields", "text")

    def __init__(self, text: str, fields: Mapping[str, Any]) -> None:
        self.text = text
        self.fields = fields

    @property
    def size(self) -> int:
        """The characters of its values, about."""
        return sum(len(name) + 16 + _size(value) for name, value in self.fields.items())

    def __str__(self) -> str:
        parts = [self.text]
        for name, value in self.fields.items():
            if isinstance(value, Mapping):
                parts += [f"{name}.{_quoted(str(key))}={_quoted(str(item))}" for key, item in value.items()]
            else:
                parts.append(f"{name}={_quoted(str(value))}")
        return " ".join(parts)


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(len(key) + len(item) + 16 for key, item in value.items())
    return len(value) if isinstance(value, str) else 16


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _exception_lines(record: logging.LogRecord) -> list[str]:
    """Returns the lines of a record's traceback; none without an exception.

    The text of an exception, which may hold anything, stays within one line.
    """
    trace = getattr(record, "trace", None)
    if not isinstance(trace, traceback.TracebackException):
        if not record.exc_info or record.exc_info[0] is None:
            return [escape(line) for line in shortened(record.exc_text or "").split("\n") if line]
        trace = traceback.TracebackException(*record.exc_info, compact=True)
    lines: list[str] = []
    _escape_notes(trace)
    for part in trace.format():
        is_frame = part.lstrip(" |+-").startswith('File "')
        text = shortened(part.strip("\n"))
        lines += [escape(line) for line in (text.split("\n") if is_frame else [text]) if line]
    return lines


def _escape_notes(trace: traceback.TracebackException) -> None:
    """Keeps each note of an exception, and of those that it came from, in one line."""
    traces, seen = [trace], set[int]()
    while traces:
        trace = traces.pop()
        if id(trace) in seen:
            continue
        seen.add(id(trace))
        notes = getattr(trace, "__notes__", None)
        if isinstance(notes, list | tuple):
            trace.__notes__ = [escape(note) if isinstance(note, str) else "a note that is no text" for note in notes]
        elif notes is not None:
            trace.__notes__ = None
        traces += [near for near in (trace.__cause__, trace.__context__) if near is not None]
        traces += getattr(trace, "exceptions", None) or ()


class TextFormatter(logging.Formatter):
    """Writes a record as its time in UTC, level, logger and message in one line.

    A traceback follows in lines of its own, each of which begins with `  | `; an exception's text is one of them.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, or lines, of a record, without a line end at the end."""
        line = f"{_time(record)} {record.levelname} {escape(record.name)} {escape(record.getMessage())}"
        return _CONTINUED.join([line, *_exception_lines(record)])


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object in one line: `time`, `level`, `logger`, `message`, and its named values.

    A traceback is the text of the key `exception`. The line holds ASCII alone.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record, without a line end."""
        message = record.msg
        fields = message.fields if isinstance(message, StructuredMessage) else {}
        values: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": message.text if isinstance(message, StructuredMessage) else shortened(record.getMessage()),
        }
        values |= {name: _cut(value) for name, value in fields.items() if name not in values}
        if lines := _exception_lines(record):
            values["exception"] = "\n".join(lines)
        return json.dumps(values, default=str).replace("\x7f", "\\u007f")


def shortened(text: str) -> str:
    """Returns a text with at most `MAX_CHARACTERS` of its characters, and the number of those left out."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(text) - MAX_CHARACTERS} characters more)"


def _cut(value: object) -> object:
    """Returns a value whose texts, and those of a mapping, are no longer than others in the log."""
    if isinstance(value, Mapping):
        return {name: _cut(item) for name, item in value.items()}
    return shortened(value) if isinstance(value, str) else value


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
