"""The requests that pause before they are tried again."""

from __future__ import annotations

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
        self.waiting = self.waiting_bytes = 0
        """Requests that pause, and the bytes that they hold."""

    def has_room(self, size: int) -> bool:
        """Returns True if a request of so many bytes may pause, too."""
        has_bytes = not self.waiting or self.waiting_bytes + size <= _MOST_BYTES
        return self.waiting < _MOST_REQUESTS and has_bytes

    @contextmanager
    def pause(self, size: int) -> Iterator[None]:
        """Counts a request of so many bytes as pausing until the context is left."""
        self.waiting += 1
        self.waiting_bytes += size
        try:
            yield
        finally:
            self.waiting -= 1
            self.waiting_bytes -= size
