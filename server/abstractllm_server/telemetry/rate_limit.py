"""A limit of log lines that strangers cause."""

from __future__ import annotations

import time

__all__ = ["RateLimit"]


class RateLimit:
    """Lets so many lines pass at once, then so many a second, and counts the others.

    Args:
        burst: Lines at once.
        per_second: Lines a second after that.
    """

    def __init__(self, burst: int = 100, per_second: float = 20.0) -> None:
        self._burst = burst
        self._per_second = per_second
        self._budget = float(burst)
        self._filled_at = time.monotonic()
        self._left_out = 0

    def take(self) -> int | None:
        """Asks whether a line may be written.

        Returns:
            The lines that were left out since the last that was not; None if this one is to be left out.
        """
        now = time.monotonic()
        self._budget = min(self._burst, self._budget + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._budget < 1:
            self._left_out += 1
            return None
        self._budget -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
