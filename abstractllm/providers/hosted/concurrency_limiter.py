"""A limit on how many requests one LLM has running upstream, whichever threads and event loops they come from."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["ConcurrencyLimiter"]

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class ConcurrencyLimiter:
    """Lets at most `limit` requests run; the others wait in the order of their arrival.

    An `asyncio.Semaphore` belongs to one event loop; an LLM may be asked from several.
    """

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._running = 0
        self._waiting: deque[_Waiter] = deque()

    @property
    def waiting(self) -> int:
        """The number of requests that wait for their turn."""
        return len(self._waiting)

    def set_limit(self, limit: int) -> None:
        """Changes the limit; requests that run already go on."""
        with self._lock:
            self._limit = limit
            self._admit()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[float]:
        """Waits until a request may run, and counts it as running until the context is left.

        Yields:
            The seconds that it waited.
        """
        began = time.monotonic()
        await self._wait()
        try:
            yield time.monotonic() - began
        finally:
            self._release()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._running < self._limit and not self._waiting:
                self._running += 1
                return
            waiter = (loop, loop.create_future())
            self._waiting.append(waiter)
        try:
            await waiter[1]
        except asyncio.CancelledError:
            with self._lock:
                is_admitted = waiter not in self._waiting
                if not is_admitted:
                    self._waiting.remove(waiter)
            if is_admitted:
                self._release()
            raise

    def _release(self) -> None:
        with self._lock:
            self._running -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._running < self._limit:
            loop, future = self._waiting.popleft()
            try:
                loop.call_soon_threadsafe(_wake, future)
            except RuntimeError:  # its event loop is closed, and the waiter with it
                continue
            self._running += 1


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
