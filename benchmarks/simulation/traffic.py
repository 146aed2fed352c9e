"""Requests as they come: when, and how long."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.simulation.replica import Request

__all__ = ["Length", "Traffic"]


@dataclass(frozen=True)
class Length:
    """The lengths of prompts or answers, in tokens.

    Attributes:
        mean: The mean.
        spread: The standard deviation over the mean: 0 for lengths that are all equal; others are log-normal, which has
            many short ones and few very long ones. `exponential` lengths have a spread of 1.
        exponential: True for exponential lengths.
        most: The longest one; longer ones are cut.
    """

    mean: float
    spread: float = 0.0
    exponential: bool = False
    most: int = 1_000_000

    def __post_init__(self) -> None:
        if self.mean < 1 or self.spread < 0:
            raise ValueError(f"a mean of at least 1 token and a spread of at least 0 are needed, got {self}")

    def draw(self, numbers: random.Random) -> int:
        """Returns a length."""
        if self.exponential:
            value = numbers.expovariate(1 / self.mean)
        elif self.spread == 0:
            value = self.mean
        else:
            variance = math.log(1 + self.spread**2)
            value = numbers.lognormvariate(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return min(max(1, round(value)), self.most)

    def left(self, numbers: random.Random) -> int:
        """Returns what is left of one that is met on its way; longer ones are met more often, by their length."""
        if self.exponential:
            whole = numbers.gammavariate(2, self.mean)
        elif self.spread == 0:
            whole = self.mean
        else:
            variance = math.log(1 + self.spread**2)
            whole = numbers.lognormvariate(math.log(self.mean) + variance / 2, math.sqrt(variance))
        return max(1, math.ceil(numbers.random() * min(whole, self.most)))


@dataclass(frozen=True)
class Traffic:
    """The requests of a while.

    Attributes:
        rate: Requests a second, in the mean.
        seconds: The time in which they come.
        prompt: The lengths of their prompts.
        answer: The lengths of their answers.
        burst: The rate within a burst, over the mean rate; 1 for none. Half of all requests come in bursts, which take
            1 / (2 burst) of the time.
        burst_seconds: The mean duration of a burst.
        clients: Processes that they come from, each of which balances by itself.
        running: Requests that are on their way when it begins, their prompts read and a part of their answers given, so
            that it need not last until the replicas have filled.
        seed: The seed of everything that is drawn.
    """

    rate: float
    seconds: float
    prompt: Length = Length(256)
    answer: Length = Length(128)
    burst: float = 1.0
    burst_seconds: float = 5.0
    clients: int = 1
    seed: int = 0
    running: int = 0

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.seconds <= 0 or self.burst < 1 or self.burst_seconds <= 0 or self.clients < 1:
            raise ValueError(
                "rate, seconds and burst_seconds must be more than 0, burst and clients at least 1, "
                f"got {self.rate}, {self.seconds}, {self.burst_seconds}, {self.burst} and {self.clients}"
            )

    def requests(self) -> Iterator[Request]:
        """Yields the requests in the order of their arrival; first those that run already, as of the time 0."""
        earlier = random.Random(f"{self.seed} running")
        for number in range(self.running):
            yield Request(number, 0.0, 1, self.answer.left(earlier), client=earlier.randrange(self.clients))
        arrivals, lengths = random.Random(f"{self.seed} arrivals"), random.Random(f"{self.seed} lengths")
        for number, arrived in enumerate(self._arrivals(arrivals), self.running):
            prompt, answer = self.prompt.draw(lengths), self.answer.draw(lengths)
            yield Request(number, arrived, prompt, answer, client=lengths.randrange(self.clients))

    def _arrivals(self, numbers: random.Random) -> Iterator[float]:
        """Yields the times of arrivals: Poisson, at a rate that changes between bursts and the time between them."""
        share = 1 / (2 * self.burst)
        is_burst, now = False, 0.0
        changes = numbers.expovariate(share / (self.burst_seconds * (1 - share))) if self.burst > 1 else math.inf
        while now < self.seconds:
            rate = self.rate
            if self.burst > 1:
                rate *= self.burst if is_burst else 0.5 / (1 - share)
            following = now + numbers.expovariate(rate)
            if following > changes:  # the exponential has no memory: draw again from the change on
                now, is_burst = changes, not is_burst
                mean = self.burst_seconds if is_burst else self.burst_seconds * (1 - share) / share
                changes = now + numbers.expovariate(1 / mean)
                continue
            now = following
            if now < self.seconds:
                yield now
