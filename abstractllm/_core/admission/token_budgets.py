"""The tokens that each caller may still use: a bucket for each, which fills up within a minute."""

from __future__ import annotations

import threading
import time

__all__ = ["TokenBudgets"]

_MINUTE = 60.0
_SPARE_BUCKETS = 64
"""Buckets beyond which those that have filled up are looked for, and dropped."""


class TokenBudgets:
    """The buckets of callers, for any thread; a caller without one has a full one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float, float]] = {}
        """By caller: the tokens that are missing, the time when that was so, and the time when none will be."""
        self._sweep_at = _SPARE_BUCKETS

    def reserve(self, caller: str, tokens: int, per_minute: int) -> float:
        """Takes tokens from a bucket, if it has as many, or is full.

        Args:
            caller: The caller.
            tokens: The tokens; more than a bucket can have are taken from a full one, which then fills later.
            per_minute: The size of the bucket.

        Returns:
            0 if they were taken, else the seconds until they can be.
        """
        with self._lock:
            missing = self._missing(caller, per_minute)
            lack = missing + min(tokens, per_minute) - per_minute
            if lack > 0:
                return lack * _MINUTE / per_minute
            self._set(caller, missing + tokens, per_minute)
            return 0.0

    def correct(self, caller: str, tokens: int, per_minute: int) -> None:
        """Takes some more tokens from a bucket, whatever it has, or puts some back where they are negative."""
        with self._lock:
            self._set(caller, self._missing(caller, per_minute) + tokens, per_minute)

    def _missing(self, caller: str, per_minute: int) -> float:
        missing, since, _ = self._buckets.get(caller, (0.0, 0.0, 0.0))
        return max(0.0, missing - (time.monotonic() - since) * per_minute / _MINUTE) if missing else 0.0

    def _set(self, caller: str, missing: float, per_minute: int) -> None:
        now = time.monotonic()
        if missing > 0:
            self._buckets[caller] = missing, now, now + missing * _MINUTE / per_minute
        else:
            self._buckets.pop(caller, None)
        if len(self._buckets) > self._sweep_at:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket[2] > now}
            self._sweep_at = max(_SPARE_BUCKETS, 2 * len(self._buckets))
