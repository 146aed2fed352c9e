"""Reading JSON that arrives in pieces, and passing it on as it comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum, auto

from abstractllm.providers.huggingface.worker.parsing.reader import SPACE, Parsing, Reader

__all__ = ["read_json"]

_SCALAR_CHARACTERS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")
_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_ESCAPES = '"\\/bfnrtu'
_BREAKS = frozenset('"\\' + "".join(map(chr, range(0x20))))
"""Characters that cannot stand in a string as they are."""
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class _Next(StrEnum):
    """The parts of a JSON text that may come next."""

    VALUE = auto()
    VALUE_OR_END = auto()
    KEY = auto()
    KEY_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()


_VALUES = frozenset({_Next.VALUE, _Next.VALUE_OR_END})
_KEYS = frozenset({_Next.KEY, _Next.KEY_OR_END})
_ENDS = frozenset({_Next.VALUE_OR_END, _Next.KEY_OR_END, _Next.COMMA_OR_END})


def read_json(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    """Reads one JSON value and emits it piece by piece.

    Line breaks and other control characters inside strings, which models write and JSON forbids, are escaped. Any other
    mistake ends the reading. Nesting of any depth takes no stack.

    Args:
        reader: Stands at the value, or at white space before it.
        emit: Called with each piece of the value.

    Returns:
        Whether a whole value was read; if not, the reader stands at the first character that cannot be part of one.
    """
    expected = _Next.VALUE
    closers: list[str] = []
    while True:
        character = yield from reader.peek()
        if not character:
            return False
        if character in SPACE:
            reader.place += 1
            if closers:
                emit(character)
            continue
        if character == '"' and (expected in _VALUES or expected in _KEYS):
            if not (yield from _read_string(reader, emit)):
                return False
            expected = _Next.COLON if expected in _KEYS else _Next.COMMA_OR_END
        elif character in _SCALAR_CHARACTERS and expected in _VALUES:
            if not (yield from _read_scalar(reader, emit)):
                return False
            expected = _Next.COMMA_OR_END
        else:
            if (after := _after_punctuation(character, expected, closers)) is None:
                return False
            expected = after
            reader.place += 1
            emit(character)
        if not closers:
            return True


def _after_punctuation(character: str, expected: _Next, closers: list[str]) -> _Next | None:
    """Returns what may follow a brace, a bracket, a comma or a colon; None where the character must not stand.

    Args:
        character: The character.
        expected: What may come in its place.
        closers: The brackets that will close the open objects and arrays, the innermost last; kept up to date.
    """
    if character in "{[" and expected in _VALUES:
        closers.append("}" if character == "{" else "]")
        return _Next.KEY_OR_END if character == "{" else _Next.VALUE_OR_END
    if expected in _ENDS and character == closers[-1]:
        closers.pop()
        return _Next.COMMA_OR_END
    if expected is _Next.COMMA_OR_END and character == ",":
        return _Next.KEY if closers[-1] == "}" else _Next.VALUE
    if expected is _Next.COLON and character == ":":
        return _Next.VALUE
    return None


def _read_string(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    reader.place += 1
    emit('"')
    while character := (yield from reader.peek()):
        if character == "\\":
            if not (yield from _read_escape(reader, emit)):
                return False
            continue
        if character not in _BREAKS:
            emit((yield from reader.take_run(_PLAIN)))
            continue
        reader.place += 1
        if character == '"':
            emit(character)
            return True
        emit({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or f"\\u{ord(character):04x}")
    return False


def _read_escape(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    """Reads a backslash and what it escapes; if that is wrong, the reader stays at the backslash."""
    begin = reader.place
    reader.place += 1
    kind = yield from reader.peek()
    if not kind or kind not in _ESCAPES:
        reader.place = begin
        return False
    reader.place += 1
    for _ in range(4 if kind == "u" else 0):
        if (yield from reader.peek()) not in _HEXADECIMAL:
            reader.place = begin
            return False
        reader.place += 1
    emit(reader.slice(begin, reader.place))
    return True


def _read_scalar(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    begin = reader.place
    while (yield from reader.peek()) in _SCALAR_CHARACTERS:
        reader.place += 1
    word = reader.slice(begin, reader.place)
    if not _SCALAR.fullmatch(word):
        reader.place = begin
        return False
    emit(word)
    return True
