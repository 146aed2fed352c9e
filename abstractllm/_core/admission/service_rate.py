"""The present rate of an LLM: how much it completes while requests wait for it, and how long one answer takes."""

from __future__ import annotations

import math
import time

__all__ = ["ServiceRate"]

_INITIAL_RATE = 10.0
"""Requests completed per second, before any was."""
_TIME_CONSTANT = 10.0
"""Seconds, at least, after which what was measured counts for a third."""
_ANSWERS_PER_TIME_CONSTANT = 3.0
"""The same in durations of an answer: those of one batch may all end at the same moment."""
_MEMORY = 0.95
"""The weight of an answer's duration beside that of the next one."""
_PRIOR = 0.01
"""The weight, beside what was measured, of the shortest duration that is possible: it counts where all are about
equally long."""
_LEAST_RATE = 1e-9
"""Requests per second, at least: an LLM that completes nothing for hours has some rate all the same."""
_SECONDS = 1.0
"""The weight, in seconds, of what was measured a long time ago."""


class ServiceRate:
    """Requests and tokens completed per second of late, measured while some wait: an idle LLM completes few."""

    def __init__(self) -> None:
        self._completed, self._seconds = _INITIAL_RATE, _SECONDS
        self._tokens = self._requests = 0.0
        """Expected tokens of requests that are over, and their number."""
        self._is_measured = False
        self._since: float | None = None
        """The time of the last measurement; None while nothing waits."""
        self._stopped_at = time.monotonic()
        # Weighted sums over answers, for the line of their durations over their tokens.
        self._seen = 0
        """Answers so far."""
        self._answers = self._sum_tokens = self._sum_seconds = self._sum_squares = self._sum_products = 0.0

    @property
    def is_known(self) -> bool:
        """True once enough answers were completed."""
        return self._answers > 0

    @property
    def mean_duration(self) -> float:
        """Seconds that answers took of late, in the mean; 0 while that is not known."""
        return self._sum_seconds / self._answers if self._answers else 0.0

    @property
    def per_second(self) -> float:
        """Requests completed per second."""
        self._decay()
        return max(_LEAST_RATE, self._completed / self._seconds)

    def observe(self, is_busy: bool, places: int = 1) -> None:
        """Begins to measure, or stops.

        Args:
            is_busy: True if requests wait although others are being answered.
            places: Requests that are answered at a time.
        """
        if is_busy and self._since is None:
            self._resume(places)
        elif not is_busy and self._since is not None:
            self._decay()
            self._since, self._stopped_at = None, time.monotonic()

    def record(self, tokens: int) -> None:
        """Counts a request that is over, and the tokens that it was expected to take, however it ended."""
        self._tokens = self._tokens * _MEMORY + tokens
        self._requests = self._requests * _MEMORY + 1
        if self._since is not None:
            self._decay()
            self._is_measured = True
            self._completed += 1

    def record_answer(self, answer_tokens: int, seconds: float, places: int = 0) -> None:
        """Notes how long a whole answer took from its turn to its end.

        Args:
            answer_tokens: Its tokens.
            seconds: Its duration.
            places: Requests that are answered at a time: so many answers are passed over at first, since they may have
                waited for connections, libraries or caches.
        """
        self._seen += 1
        if self._seen <= places:
            return
        self._answers = self._answers * _MEMORY + 1
        self._sum_tokens = self._sum_tokens * _MEMORY + answer_tokens
        self._sum_seconds = self._sum_seconds * _MEMORY + seconds
        self._sum_squares = self._sum_squares * _MEMORY + answer_tokens**2
        self._sum_products = self._sum_products * _MEMORY + answer_tokens * seconds

    def wait(self, requests: float, tokens: float) -> float:
        """Returns the seconds until so many requests, that are expected to take so many tokens, have been taken."""
        if self._tokens:
            # As many requests of the usual size.
            requests = max(requests, tokens * self._requests / self._tokens)
        return requests / self.per_second

    def duration(self, answer_tokens: int) -> float:
        """Returns the seconds that an answer of so many tokens takes from its turn to its end, at least.

        A longer one than those of late takes longer only as far as that was seen; a shorter one may take less in
        proportion.
        """
        if not self.is_known:
            return 0.0
        mean_tokens, mean_seconds = self._sum_tokens / self._answers, self._sum_seconds / self._answers
        if not mean_tokens:
            return mean_seconds
        variance = max(0.0, self._sum_squares / self._answers - mean_tokens**2)
        covariance = self._sum_products / self._answers - mean_tokens * mean_seconds
        prior = _PRIOR * mean_tokens**2
        if answer_tokens < mean_tokens:
            covariance += prior * mean_seconds / mean_tokens
        slope = covariance / (variance + prior)
        return max(0.0, mean_seconds + max(0.0, slope) * (answer_tokens - mean_tokens))

    def _resume(self, places: int) -> None:
        """Starts from what was measured before; the longer ago that was, the less it counts."""
        now = time.monotonic()
        seconds = max(_SECONDS, self._seconds * math.exp((self._stopped_at - now) / self._time_constant))
        if self.is_known and not self._is_measured:
            self._completed = places * self._answers / max(self._sum_seconds, 1e-6)
            self._seconds = 1.0
        self._completed, self._seconds = self._completed * seconds / self._seconds, seconds
        self._since = now

    @property
    def _time_constant(self) -> float:
        return max(_TIME_CONSTANT, _ANSWERS_PER_TIME_CONSTANT * self.mean_duration)

    def _decay(self) -> None:
        """Counts the time since the last measurement, and lets what is older count for less."""
        if self._since is None:
            return
        now = time.monotonic()
        constant = self._time_constant
        weight = math.exp((self._since - now) / constant)
        self._completed *= weight
        self._seconds = self._seconds * weight + constant * (1 - weight)
        self._since = now
