"""The requests that pause before they are tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["RetryPauses"]

_MOST_REQUESTS = 256
_MOST_BYTES = 64 << 20


class RetryPauses:
    """Bounds the requests of one LLM that pause, and their bytes: further ones are given back to their callers.

    A failing provider may fail any number of requests in the time of one pause, and they have no place in a queue.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._bytes = 0

    @contextmanager
    def pause(self, size: int) -> Iterator[bool]:
        """Counts a request of so many bytes as pausing until the context is left.

        Yields:
            False if there is no room for it: then it must not pause.
        """
        with self._lock:
            has_room = self._requests < _MOST_REQUESTS and (not self._bytes or self._bytes + size <= _MOST_BYTES)
            if has_room:
                self._requests += 1
                self._bytes += size
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._requests -= 1
                    self._bytes -= size
