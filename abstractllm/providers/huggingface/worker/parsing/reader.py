"""Text that is read while it arrives."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

__all__ = ["SPACE", "Parsing", "Reader"]

T = TypeVar("T")

Parsing = Generator[None, None, T]
"""A parser that is a generator: it yields where it needs more text, and is resumed when more has come or the text has
ended. Its return value is what it has read."""

SPACE = " \t\r\n"
"""White space, as JSON defines it."""


class Reader:
    """A text that grows, and a place in it. The results of its methods do not depend on how the text was cut.

    Places count characters from the beginning of the text.
    """

    def __init__(self) -> None:
        self._text = ""
        """The text without what was forgotten."""
        self._forgotten = 0
        """The place of `_text`'s first character."""
        self.place = 0
        """The place of the next character to read."""
        self.has_ended = False
        """True once no more text will come."""
        self._special: list[tuple[int, int]] = []
        """The places of special tokens, which are read like text but are never part of the answer's text."""

    def add(self, text: str, is_special: bool = False) -> None:
        """Appends the next piece of the text.

        Args:
            text: The piece.
            is_special: Whether it is a special token: it is read like any other piece, but never `visible`.
        """
        if is_special:
            self._special.append((self.end, self.end + len(text)))
        self._text += text

    def slice(self, begin: int, end: int) -> str:
        """Returns the text between two places, neither of which has been forgotten."""
        return self._text[begin - self._forgotten : end - self._forgotten]

    def visible(self, begin: int, end: int) -> str:
        """Returns the text between two places without special tokens."""
        text, place = "", begin
        for first, last in self._special:
            if begin <= first and last <= end:
                text, place = text + self.slice(place, first), last
        return text + self.slice(place, end)

    def forget(self, place: int) -> None:
        """Drops the text before a place."""
        self._special = [(first, last) for first, last in self._special if first >= place]
        self._text = self._text[place - self._forgotten :]
        self._forgotten = place

    @property
    def end(self) -> int:
        """The place behind all text that has come."""
        return self._forgotten + len(self._text)

    def peek(self) -> Parsing[str]:
        """Returns the next character without reading it; an empty string at the end of the text."""
        while self.place == self.end:
            if self.has_ended:
                return ""
            yield
        return self._text[self.place - self._forgotten]

    def skip_space(self) -> Parsing[str]:
        """Reads white space and returns the character behind it, which is not read."""
        while (character := (yield from self.peek())) and character in SPACE:
            self.place += 1
        return character

    def take(self, literal: str) -> Parsing[bool]:
        """Reads a literal. Where the text differs from it, stops at the first different character and returns False."""
        for expected in literal:
            if (yield from self.peek()) != expected:
                return False
            self.place += 1
        return True

    def take_one_of(self, literals: Sequence[str]) -> Parsing[str]:
        """Reads the longest of some literals that stands here.

        Returns:
            The literal; empty, with nothing read, if none does.
        """
        begin, longest = self.place, ""
        candidates = [literal for literal in literals if literal]
        while candidates:
            length = self.place - begin + 1
            character = yield from self.peek()
            if not character:
                break
            self.place += 1
            read = self.slice(begin, self.place)
            candidates = [literal for literal in candidates if literal.startswith(read)]
            longest = read if read in candidates else longest
            candidates = [literal for literal in candidates if len(literal) > length]
        self.place = begin + len(longest)
        return longest

    def find_one_of(self, literals: Sequence[str]) -> tuple[int, str]:
        """Looks for the first of some literals, from the current place on.

        Returns:
            The place where it begins, and the literal. If none has come, the place where one may still begin when more
            text comes, and an empty text.
        """
        places = [(*self.find(literal), literal) for literal in literals]
        complete = [(place, literal) for place, is_complete, literal in places if is_complete]
        if complete:
            return min(complete, key=lambda match: (match[0], -len(match[1])))
        return min(place for place, _, _ in places), ""

    def take_until(self, literal: str, limit: int) -> Parsing[str | None]:
        """Reads up to and including a literal.

        Returns:
            The text before the literal; None, with nothing read, if the literal does not begin within `limit`
            characters.
        """
        while True:
            place, is_complete = self.find(literal)
            if place - self.place > limit or (self.has_ended and not is_complete):
                return None
            if is_complete:
                text = self.slice(self.place, place)
                self.place = place + len(literal)
                return text
            yield

    def find(self, literal: str) -> tuple[int, bool]:
        """Looks for a literal, from the current place on.

        Returns:
            The place where it begins, and True. If it has not come, the place where it may still begin when more text
            comes, and False.
        """
        unread = self.slice(self.place, self.end)
        offset = unread.find(literal)
        if offset >= 0:
            return self.place + offset, True
        if not self.has_ended:
            for length in range(min(len(unread), len(literal) - 1), 0, -1):
                if literal.startswith(unread[-length:]):
                    return self.end - length, False
        return self.end, False
