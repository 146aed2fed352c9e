"""A queue between two threads in which callers take turns."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["CallerTurns"]

T = TypeVar("T")


class CallerTurns(Generic[T]):
    """Items of several callers, which are taken in turns; those of one caller stay in their order.

    Args:
        caller_of: Returns the caller of an item.
    """

    def __init__(self, caller_of: Callable[[T], str]) -> None:
        self._caller_of = caller_of
        self._changed = threading.Condition()
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        """The items of each caller that has any; the first one's turn is next."""

    def put(self, item: T) -> None:
        """Adds an item, behind the others of its caller."""
        with self._changed:
            self._lines.setdefault(self._caller_of(item), deque()).append(item)
            self._changed.notify()

    def get(self) -> T:
        """Waits for an item, and takes it out; then it is the next caller's turn."""
        with self._changed:
            while not self._lines:
                self._changed.wait()
            caller, line = next(iter(self._lines.items()))
            item = line.popleft()
            if line:
                self._lines.move_to_end(caller)
            else:
                del self._lines[caller]
            return item

    def empty(self) -> bool:
        """Returns True if there is no item."""
        return not self._lines
