"""Text that is read while it arrives."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

__all__ = ["Parsing", "Reader", "read_json"]

T = TypeVar("T")

Parsing = Generator[None, None, T]
"""A parser: it yields where it needs more text, and is gone on with when there is some, or no more will come."""

_SPACE = " \t\r\n"
_SCALAR_CHARACTERS = frozenset("+-.0123456789abcdefghijklmnopqrstuvwxyzE")
_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_ESCAPES = '"\\/bfnrtu'
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class Reader:
    """A text that grows, and a place in it. What parsers read does not depend on the pieces that it came in."""

    def __init__(self) -> None:
        self._text = ""
        self._first = 0
        """The place of `_text`'s first character."""
        self.place = 0
        """Characters that have been read."""
        self.has_ended = False
        """Whether no more text will come."""
        self._unseen: list[tuple[int, int]] = []
        """Where special tokens lie: they are read, but are no text."""

    def add(self, text: str, is_special: bool = False) -> None:
        """Takes the next piece; one that is a special token is read like any other, but never `visible`."""
        if is_special:
            self._unseen.append((self.end, self.end + len(text)))
        self._text += text

    def slice(self, begin: int, end: int) -> str:
        """The text from one place to another; neither may lie before what was last forgotten."""
        return self._text[begin - self._first : end - self._first]

    def visible(self, begin: int, end: int) -> str:
        """The text from one place to another without special tokens."""
        text, at = "", begin
        for first, last in self._unseen:
            if begin <= first and last <= end:
                text, at = text + self.slice(at, first), last
        return text + self.slice(at, end)

    def forget(self, place: int) -> None:
        """Drops the text before a place."""
        self._unseen = [(first, last) for first, last in self._unseen if first >= place]
        self._text = self._text[place - self._first :]
        self._first = place

    @property
    def end(self) -> int:
        """The place behind all text that has come."""
        return self._first + len(self._text)

    def peek(self) -> Parsing[str]:
        """The next character; empty at the end of the text."""
        while self.place == self.end:
            if self.has_ended:
                return ""
            yield
        return self._text[self.place - self._first]

    def skip_space(self) -> Parsing[str]:
        """Reads white space, and returns the character behind it."""
        while (character := (yield from self.peek())) and character in _SPACE:
            self.place += 1
        return character

    def take(self, literal: str) -> Parsing[bool]:
        """Reads a literal; where there is something else, reads as far as it is the same."""
        for wanted in literal:
            if (yield from self.peek()) != wanted:
                return False
            self.place += 1
        return True

    def take_until(self, literal: str, most: int) -> Parsing[str | None]:
        """Reads up to and with a literal, and returns what was before it; None if it is not there within `most`."""
        while True:
            at, found = self.find((literal,))
            if found and at - self.place <= most:
                before = self.slice(self.place, at)
                self.place = at + len(literal)
                return before
            if found or self.has_ended or at - self.place > most:
                return None
            yield

    def find(self, literals: Sequence[str]) -> tuple[int, str]:
        """The first place at which one of some literals begins, and which; the longest of several.

        Where none is, the place behind which one may still begin when more text comes, and an empty string.
        """
        waiting = self.slice(self.place, self.end)
        found = [(at, -len(literal), literal) for literal in literals if (at := waiting.find(literal)) >= 0]
        if found:
            at, _, literal = min(found)
            return self.place + at, literal
        if self.has_ended:
            return self.end, ""
        for length in range(min(len(waiting), max(map(len, literals), default=1) - 1), 0, -1):
            if any(literal.startswith(waiting[-length:]) for literal in literals):
                return self.end - length, ""
        return self.end, ""


def read_json(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    """Reads one JSON value, and gives it on as it comes.

    Line breaks and other control characters inside strings, which models write and JSON forbids, are escaped. Nothing
    else may be wrong.

    Args:
        reader: Stands at the value, or at white space before it.
        emit: Is given the pieces of the value.

    Returns:
        Whether there was a whole value; if not, the reader stands at the first character that cannot be part of one.
    """
    closers: list[str] = []
    wanted = "value"
    while True:
        character = yield from reader.peek()
        if not character:
            return False
        if character in _SPACE:
            reader.place += 1
            if closers:
                emit(character)
            continue
        if wanted in ("value", "value or end") and character in "{[":
            closers.append("}" if character == "{" else "]")
            wanted = "key or end" if character == "{" else "value or end"
        elif wanted.endswith("end") and closers and character == closers[-1]:
            closers.pop()
            wanted = "comma or end"
        elif wanted == "comma or end" and character == ",":
            wanted = "key" if closers[-1] == "}" else "value"
        elif wanted == "colon" and character == ":":
            wanted = "value"
        elif character == '"' and wanted.startswith(("value", "key")):
            if not (yield from _read_string(reader, emit)):
                return False
            wanted = "colon" if wanted.startswith("key") else "comma or end"
            if not closers:
                return True
            continue
        elif wanted.startswith("value") and character in _SCALAR_CHARACTERS:
            if not (yield from _read_scalar(reader, emit)):
                return False
            wanted = "comma or end"
            if not closers:
                return True
            continue
        else:
            return False
        reader.place += 1
        emit(character)
        if not closers:
            return True


def _read_string(reader: Reader, emit: Callable[[str], None]) -> Parsing[bool]:
    reader.place += 1
    emit('"')
    while character := (yield from reader.peek()):
        reader.place += 1
        if character < " ":
            emit({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or f"\\u{ord(character):04x}")
        elif character != "\\":
            emit(character)
            if character == '"':
                return True
        else:
            escape = yield from reader.peek()
            if not escape or escape not in _ESCAPES:
                reader.place -= 1
                return False
            reader.place += 1
            escaped = escape
            while escape == "u" and len(escaped) < 5:
                digit = yield from reader.peek()
                if digit not in _HEXADECIMAL:
                    reader.place -= 1 + len(escaped)
                    return False
                reader.place += 1
                escaped += digit
            emit("\\" + escaped)
    return False


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
