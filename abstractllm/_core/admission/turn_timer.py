"""A timer after which turns are given again."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["TurnTimer"]


class TurnTimer:
    """Calls a function once, a while after it is set; a lock is held when it is set, and not when it calls.

    Args:
        give_turns: The function; it may set the timer again.
    """

    def __init__(self, give_turns: Callable[[], None]) -> None:
        self._give_turns = give_turns
        self._timer: threading.Timer | None = None

    def set(self, seconds: float) -> None:
        """Sets the timer, unless it is set already."""
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._expire)
            self._timer.daemon = True
            try:
                self._timer.start()
            except RuntimeError:  # no thread is left: turns are given when the next request comes or ends
                self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._give_turns()
