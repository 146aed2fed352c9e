"""The pieces of work that the threads of an engine process are at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Activity"]


class Activity:
    """Numbers the pieces of work of all threads, so that one that never ends is noticed from outside."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._current: dict[str, int] = {}

    @property
    def current(self) -> dict[str, int]:
        """The pieces that have begun and not ended: by the name of the work, the number of the piece."""
        return self._current.copy()

    def begin(self, work: str) -> None:
        """Notes that a piece of work begins, and that an earlier one of this name has ended."""
        self._current[work] = next(self._numbers)

    def end(self, work: str) -> None:
        """Notes that the piece of work has ended."""
        self._current.pop(work, None)

    @contextmanager
    def at(self, work: str) -> Iterator[None]:
        """Notes a piece of work for the time of a `with` block."""
        self.begin(work)
        try:
            yield
        finally:
            self.end(work)
