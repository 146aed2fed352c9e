"""The unloading of a model that nobody has used for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["IdleTimer"]


class IdleTimer:
    """Calls a function once an engine has been idle for a time. The engine's lock is held in every public method.

    Args:
        lock: The engine's lock.
        idle_since: Tells since when the engine is idle, on the monotonic clock; None if it is not idle.
        expire: The function; it is called with the lock held.
    """

    def __init__(
        self, lock: threading.RLock, idle_since: Callable[[], float | None], expire: Callable[[], None]
    ) -> None:
        self.keep_alive: float | None = None
        """The time in seconds; None to keep an idle engine for ever."""
        self._lock = lock
        self._idle_since = idle_since
        self._expire = expire
        self._timer: threading.Timer | None = None

    def arm(self) -> None:
        """Begins to count the time, unless it is being counted."""
        if self.keep_alive is not None and self._timer is None:
            self._start(self.keep_alive)

    def disarm(self) -> None:
        """Stops counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._check)
        self._timer.daemon = True
        self._timer.start()

    def _check(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():  # disarmed meanwhile
                return
            self._timer = None
            since = self._idle_since()
            if since is None or self.keep_alive is None:
                return
            remaining = since + self.keep_alive - time.monotonic()
            if remaining > 0:
                self._start(remaining)
            else:
                self._expire()
