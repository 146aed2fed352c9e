"""A circuit breaker: an LLM that keeps failing is not asked for a while, until one request shows that it is well again.

It is closed while the LLM may be asked, open while it cools down, and half-open while one request tries it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["LONGEST_RETRY_AFTER", "CircuitBreaker"]

LONGEST_RETRY_AFTER = 300.0
"""Seconds for which an LLM cools down at most because its provider asks for it: the provider may be wrong."""


class CircuitBreaker:
    """The circuit breaker of one LLM; it may be used from any thread.

    Args:
        clock: Returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_until: float | None = None
        """The time at which it becomes half-open; None while it is closed."""
        self._probe: object | None = None
        """The permit of the request that tries the LLM while it is half-open."""

    @property
    def cooldown(self) -> float:
        """Seconds until a request may try the LLM again; 0 once one may."""
        until = self._opened_until
        return 0.0 if until is None else max(0.0, until - self._clock())

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def acquire(self) -> object | None:
        """Asks for a permit for one request, to be given back to `release`.

        After a cooldown only one request gets one, until it is released, or its outcome is recorded.

        Returns:
            The permit; None if the LLM must not be asked now.
        """
        permit = object()
        with self._lock:
            if self._opened_until is not None:
                if self._probe is not None or self._clock() < self._opened_until:
                    return None
                self._probe = permit
            return permit

    def release(self, permit: object | None) -> None:
        """Ends the request of a permit, whether or not its outcome was recorded."""
        with self._lock:
            if self._probe is permit:
                self._probe = None

    def record_answer(self) -> None:
        """Records the first sign of an answer: the breaker closes, but failures are forgotten only by a whole answer.

        So an LLM whose answers always break off is not asked for a while, too.
        """
        with self._lock:
            self._opened_until = self._probe = None

    def record_success(self) -> None:
        """Records a whole answer."""
        with self._lock:
            self._failures, self._opened_until, self._probe = 0, None, None

    def record_failure(self, failure_threshold: int, cooldown_time: float, retry_after: float | None = None) -> None:
        """Records a failure.

        Args:
            failure_threshold: Failures in a row after which the LLM cools down.
            cooldown_time: Seconds for which it cools down then.
            retry_after: Seconds for which the LLM itself asks not to be asked again, from its first failure on.
        """
        cooldown = min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        with self._lock:
            self._failures += 1
            self._probe = None
            if self._failures >= failure_threshold:
                cooldown = max(cooldown, cooldown_time)
            if cooldown > 0:
                self._opened_until = max(self._opened_until or 0.0, self._clock() + cooldown)
