"""Time limits for a phase of many calls, kept by one timer of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["PhaseTimer"]

Item = TypeVar("Item", bound=Hashable)

_LATE = 0.1
"""Seconds by which the timer may be late before the event loop counts as held up."""
_SECOND_LOOK = 0.05
"""Seconds that a loop which was held up has to see what came meanwhile."""


class PhaseTimer(Generic[Item]):
    """Watches items that are in a phase, and reports those that stay in it too long.

    One timer serves all of them: one for each message would cost more than the message. An event loop that was held up
    looks first at what came meanwhile: its own lateness is nobody else's.

    Args:
        seconds: The time limit of the phase.
        expired: Called once for each item that stays longer, on the event loop.
    """

    def __init__(self, seconds: float, expired: Callable[[Item], None]) -> None:
        self.seconds = seconds
        self._expired = expired
        self._starts: dict[Item, float] = {}
        """The items in the phase, and since when: the longest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_second_look = False

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, item: Item) -> bool:
        return item in self._starts

    def start(self, item: Item) -> None:
        """Notes that an item enters the phase."""
        loop = asyncio.get_running_loop()
        self._starts[item] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look)

    def stop(self, item: Item) -> None:
        """Notes that an item has left the phase, if it was in it."""
        self._starts.pop(item, None)

    def _look(self) -> None:
        """Reports the items that have been too long, and sets the timer for the next that will have."""
        loop = asyncio.get_running_loop()
        assert self._timer is not None
        is_late = loop.time() - self._timer.when() > _LATE
        self._timer = None
        if is_late and not self._is_second_look:
            self._is_second_look = True
            self._timer = loop.call_later(_SECOND_LOOK, self._look)
            return
        self._is_second_look = False
        latest = loop.time() - self.seconds
        expired = []
        for item, since in self._starts.items():
            if since > latest:
                self._timer = loop.call_later(since - latest, self._look)
                break
            expired.append(item)
        for item in expired:
            del self._starts[item]
        for item in expired:
            self._expired(item)
