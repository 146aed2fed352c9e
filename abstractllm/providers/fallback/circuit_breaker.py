"""A circuit breaker: an LLM that keeps failing rests, until one request shows that it is well again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["LONGEST_REST", "CircuitBreaker"]

LONGEST_REST = 300.0
"""Seconds for which an LLM rests at most because its provider asks for it: the provider may be wrong."""


class CircuitBreaker:
    """Whether one LLM may be asked, from any thread.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until: float | None = None
        self._probe: object | None = None

    @property
    def rest(self) -> float:
        """Seconds for which it rests still; 0 once it may be asked."""
        until = self._until
        return 0.0 if until is None else max(0.0, until - self._clock())

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def admit(self) -> object | None:
        """A token for `released` if a request may ask now, else `None`.

        After a rest only one may, until that is `released`, or something is told of the LLM.
        """
        token = object()
        with self._lock:
            if self._until is not None:
                if self._probe is not None or self._clock() < self._until:
                    return None
                self._probe = token
            return token

    def answered(self) -> None:
        """The first sign of an answer: the rest is over, but failures are forgotten only by `succeeded`.

        So an LLM whose answers always break off rests, too.
        """
        with self._lock:
            self._until = self._probe = None

    def succeeded(self) -> None:
        """A whole answer."""
        with self._lock:
            self._failures, self._until, self._probe = 0, None, None

    def failed(self, max_failures: int, rest_time: float, retry_after: float | None = None) -> None:
        """A failure.

        Args:
            max_failures: Failures in a row after which the LLM rests.
            rest_time: Seconds that it rests then.
            retry_after: Seconds for which the LLM itself asks not to be asked again, from its first failure on.
        """
        rest = min(retry_after or 0.0, LONGEST_REST)
        with self._lock:
            self._failures += 1
            self._probe = None
            if self._failures >= max_failures:
                rest = max(rest, rest_time)
            if rest > 0:
                self._until = max(self._until or 0.0, self._clock() + rest)

    def released(self, token: object | None) -> None:
        """The request that was admitted with this token has ended, whether or not anything was told of the LLM."""
        with self._lock:
            if self._probe is token:
                self._probe = None
