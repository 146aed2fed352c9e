"""The heartbeat of the event loop, and who listens to it: a thread that goes on while the loop is blocked."""

from __future__ import annotations

import asyncio
import threading
import time

__all__ = ["LoopHeartbeat"]

_INTERVAL = 0.2
"""Seconds between two beats, and between two looks at them."""


class LoopHeartbeat:
    """Tells whether the event loop runs, from any thread.

    A loop that is blocked beats no more. Only time counts in which this process runs: if the machine sleeps, or the
    process is stopped for a while, the loop is not to be blamed; so the time between two looks counts as two intervals
    at most.

    Args:
        timeout: Seconds without a beat after which the loop counts as blocked.

    Attributes:
        silence: Seconds since the last beat, as far as they count.
    """

    def __init__(self, timeout: float) -> None:
        self.silence = 0.0
        self._timeout = timeout
        self._beats = 0
        self._last_beat = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()

    @property
    def is_alive(self) -> bool:
        """True unless the loop is blocked."""
        return self.silence < self._timeout

    @property
    def lag(self) -> float:
        """Seconds by which the next beat is late."""
        return max(0.0, time.monotonic() - self._last_beat - _INTERVAL)

    def start(self) -> None:
        """Begins to beat, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._beat()
        threading.Thread(target=self._listen, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Ends the beats; called in the loop."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        assert self._loop is not None
        self._last_beat = time.monotonic()
        self._beats += 1
        self._timer = self._loop.call_later(_INTERVAL, self._beat)

    def _listen(self) -> None:
        heard, last = self._beats, time.monotonic()
        while not self._stopped.wait(_INTERVAL):
            now = time.monotonic()
            self.silence = 0.0 if heard != self._beats else self.silence + min(now - last, 2 * _INTERVAL)
            heard, last = self._beats, now
