"""Memory that a load has left behind, given back to the system."""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["MemoryTrimmer"]

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()
_GROWTH = 8 << 20
"""Bytes by which a process must have grown before it is worth the effort."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 4.0
"""Seconds between two tries: more after each that gave little back."""


class MemoryTrimmer:
    """Has glibc give back what was freed: it keeps that otherwise, in a heap for each thread.

    After a flood of calls that would be most of the memory that they took.
    """

    def __init__(self) -> None:
        self._smallest = self._latest = _resident_bytes()
        self._pause = _SHORTEST_PAUSE
        self._next = 0.0

    def trim(self) -> None:
        """Gives back what is free, if the process has grown; called again and again, by one thread."""
        size, now = _resident_bytes(), time.monotonic()
        if not size:
            return
        if size > self._latest + _GROWTH:
            self._pause, self._next = _SHORTEST_PAUSE, min(self._next, now + _SHORTEST_PAUSE)
        self._smallest = min(self._smallest, size)
        if size < self._smallest + _GROWTH or now < self._next or (trim := _malloc_trim()) is None:
            return
        trim(0)
        self._latest = _resident_bytes()
        self._pause = _SHORTEST_PAUSE if size - self._latest > _GROWTH else min(2 * self._pause, _LONGEST_PAUSE)
        self._next = now + self._pause


@cache
def _malloc_trim() -> Callable[[int], object] | None:
    """Returns glibc's `malloc_trim`; None with another library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:  # no descriptor is left; or it is macOS, whose allocator needs no help
        return 0
