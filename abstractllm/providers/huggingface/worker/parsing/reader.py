"""Text that is read while it arrives."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import TypeVar

__all__ = ["SPACE", "Parsing", "Reader"]

T = TypeVar("T")

Parsing = Generator[None, None, T]
"""A parser that is a generator: it yields where it needs more text, and is resumed when more has come or the text has
ended. Its return value is what it has read."""

SPACE = " \t\r\n"
"""White space, as JSON defines it."""
_LONGEST_SPACE = 64
"""Characters of white space that may belong to neither of two parts of an answer."""
_SPACES = re.compile(f"[{SPACE}]*")


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
        self._sought: dict[str, tuple[int, int]] = {}
        """The literals that were looked for, and between which places none begins."""
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
        # A text with one name is lengthened in place; one that is an attribute would be copied each time.
        whole, self._text = self._text, ""
        whole += text
        self._text = whole

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

    def behind_text(self, place: int) -> int:
        """Returns the place behind the unread text before a place, without the white space at its end.

        Of very long white space only the end is left out, so that it need not be looked at again with each piece.
        """
        text = self.slice(self.place, place)
        return self.place + max(len(text.rstrip(SPACE)), len(text) - _LONGEST_SPACE)

    def forget(self, place: int) -> None:
        """Drops the text before a place."""
        self._special = [(first, last) for first, last in self._special if first >= place]
        self._text = self._text[place - self._forgotten :]
        self._forgotten = place

    @property
    def begin(self) -> int:
        """The place of the first character that has not been forgotten."""
        return self._forgotten

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
            yield from self.take_run(_SPACES)
        return character

    def take_run(self, pattern: re.Pattern[str]) -> Parsing[str]:
        """Reads what has come of a run of characters; empty if the next character is none of them.

        Args:
            pattern: The run, which may be empty.
        """
        yield from self.peek()
        match = pattern.match(self._text, self.place - self._forgotten)
        run = match.group() if match else ""
        self.place += len(run)
        return run

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

    def is_followed_by(self, literal: str) -> Parsing[bool]:
        """Tells whether a literal stands here, behind white space; reads nothing."""
        begin = self.place
        yield from self.skip_space()
        is_there = bool((yield from self.take_one_of((literal,))))
        self.place = begin
        return is_there

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
        sought_from, sought_to = self._sought.get(literal, (0, 0))
        begin = sought_to if sought_from <= self.place <= sought_to else self.place
        offset = self._text.find(literal, begin - self._forgotten)
        if offset >= 0:
            return self._forgotten + offset, True
        place = self.end
        if not self.has_ended:
            for length in range(min(self.end - begin, len(literal) - 1), 0, -1):
                if self._text.endswith(literal[:length]):
                    place -= length
                    break
        self._sought[literal] = (self.place, place)
        return place, False
