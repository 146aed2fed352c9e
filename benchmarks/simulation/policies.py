"""The policies by which clients, or a front before the replicas, choose the replica of a request."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.simulation.replica import Replica

__all__ = ["POLICIES", "Policy"]

_LEAST_WEIGHT_SHARE = 0.01
_MEMORY_SECONDS = 20.0
_USUAL_TOKEN_SECONDS = 0.05


class Policy(Protocol):
    """A way to choose; each client has an instance of its own, and knows of its own requests alone."""

    refresh_seconds: float
    """Seconds between two looks at the replicas' reports; 0 for none."""

    def choose(self) -> Replica:
        """Returns the replica of the next request."""

    def end(self, replica: Replica) -> None:
        """Takes note of the end of a request that it has sent."""

    def refresh(self, seconds: float) -> None:
        """Takes the replicas' reports."""


class RoundRobin:
    """One replica after another, beginning anywhere: gRPC's `round_robin`."""

    refresh_seconds = 0.0

    def __init__(self, replicas: Sequence[Replica], numbers: random.Random) -> None:
        self._replicas = list(replicas)
        numbers.shuffle(self._replicas)
        self._next = 0

    def choose(self) -> Replica:
        """Returns the next one."""
        replica = self._replicas[self._next]
        self._next = (self._next + 1) % len(self._replicas)
        return replica

    def end(self, replica: Replica) -> None:
        """Needs no note."""

    def refresh(self, seconds: float) -> None:
        """Needs no reports."""


class RandomChoice:
    """Any replica, each as likely: many clients with few calls each come to this."""

    refresh_seconds = 0.0

    def __init__(self, replicas: Sequence[Replica], numbers: random.Random) -> None:
        self._replicas, self._numbers = list(replicas), numbers

    def choose(self) -> Replica:
        """Returns one of them."""
        return self._numbers.choice(self._replicas)

    def end(self, replica: Replica) -> None:
        """Needs no note."""

    def refresh(self, seconds: float) -> None:
        """Needs no reports."""


class LeastLoaded:
    """The replica that has fewest of this client's requests: gRPC's `least_request`, with all replicas looked at."""

    refresh_seconds = 0.0

    def __init__(self, replicas: Sequence[Replica], numbers: random.Random) -> None:
        self._numbers = numbers
        self._counts = {replica.number: 0 for replica in replicas}
        self._by_count: dict[int, list[Replica]] = {0: list(replicas)}
        self._places = {replica.number: place for place, replica in enumerate(replicas)}
        self._least = 0

    def choose(self) -> Replica:
        """Returns one of those with the fewest."""
        while not self._by_count.get(self._least):
            self._least += 1
        replica = self._numbers.choice(self._by_count[self._least])
        self._move(replica, 1)
        return replica

    def end(self, replica: Replica) -> None:
        """Counts one less."""
        self._move(replica, -1)
        self._least = min(self._least, self._counts[replica.number])

    def refresh(self, seconds: float) -> None:
        """Needs no reports."""

    def _move(self, replica: Replica, change: int) -> None:
        count = self._counts[replica.number]
        peers, place = self._by_count[count], self._places[replica.number]
        last = peers.pop()
        if last is not replica:
            peers[place] = last
            self._places[last.number] = place
        others = self._by_count.setdefault(count + change, [])
        self._places[replica.number] = len(others)
        others.append(replica)
        self._counts[replica.number] = count + change


class Weighted:
    """Turns weighted by the servers' load reports: gRPC's `weighted_round_robin` with ORCA.

    A weight is the rate of answers over the utilization that our server tells: the requests that it had at a time, over
    its places, times its seconds for a token over the usual ones, and what waits over its places; all of it as of the
    last half minute or so. Reports are as old as the time between two looks at them. Without one a replica counts as
    the mean of the others. Every client has the reports of all its replicas, as by a stream of them: by trailers it
    would have those of replicas that it has called.
    """

    refresh_seconds = 1.0

    def __init__(self, replicas: Sequence[Replica], numbers: random.Random) -> None:
        self._reports = [_Report(replica) for replica in replicas]
        self._weights = [1.0] * len(self._reports)
        self._turns = [(numbers.random(), place) for place in range(len(self._reports))]
        heapq.heapify(self._turns)
        self._now = 0.0
        """The turn of the replica that was chosen last."""

    def choose(self) -> Replica:
        """Returns the one whose turn is next."""
        turn, place = self._turns[0]
        self._now = turn
        heapq.heapreplace(self._turns, (turn + 1 / self._weights[place], place))
        return self._reports[place].replica

    def end(self, replica: Replica) -> None:
        """Needs no note."""

    def refresh(self, seconds: float) -> None:
        """Computes the weights anew."""
        weights = [report.weight(seconds) for report in self._reports]
        known = [weight for weight in weights if weight > 0]
        if known:
            mean = sum(known) / len(known)
            before = self._weights
            self._weights = [max(weight or mean, mean * _LEAST_WEIGHT_SHARE) / mean for weight in weights]
            # What is left until each one's turn grows or shrinks with its weight at once: a client that calls little
            # would take minutes for the round that it has begun.
            self._turns = [
                (self._now + (turn - self._now) * before[place] / self._weights[place], place)
                for turn, place in self._turns
            ]
            heapq.heapify(self._turns)


class _Report:
    """The load that a replica tells: what it has done, of which the older counts for less."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._elapsed = self._answered = self._seconds = self._tokens = 0.0
        self._before = (0, 0.0, 0)

    def weight(self, seconds: float) -> float:
        """Returns the weight after further seconds; 0 while nothing is known."""
        replica = self.replica
        factor = math.exp(-seconds / _MEMORY_SECONDS)
        self._elapsed = self._elapsed * factor + _MEMORY_SECONDS * (1 - factor)
        now = (replica.answered, replica.answered_seconds, replica.answered_tokens)
        answered, took, tokens = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        self._answered = self._answered * factor + answered
        self._seconds = self._seconds * factor + took
        self._tokens = self._tokens * factor + tokens
        if self._tokens <= 0:
            return 0.0
        places = replica.limits.places
        utilization = self._seconds / self._elapsed / places * (self._seconds / self._tokens / _USUAL_TOKEN_SECONDS)
        return self._answered / self._elapsed / (utilization + len(replica.waiting) / places)


POLICIES: dict[str, Callable[[Sequence[Replica], random.Random], Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "weighted": Weighted,
    "random": RandomChoice,
}
"""The policies by their names."""
