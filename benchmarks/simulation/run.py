"""The run of a simulation, and its outcome."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.simulation.policies import POLICIES, Policy
from benchmarks.simulation.replica import Limits, Replica, Request, StepTimes

__all__ = ["Fleet", "Outcome", "quantile", "simulate"]

_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Fleet:
    """The replicas, and the way to them.

    Attributes:
        replicas: Their number.
        times: The step times of each.
        limits: The limits of each.
        policy: The name of the policy, one of `POLICIES`.
        subset: Replicas that each client knows, drawn for it; 0 for all.
        slow_share: The share of the replicas that are slower than the others.
        slow_factor: The factor by which they are slower.
        attempts: Tries of a request in all; a refused one is sent again after a second or so, wherever it is its turn.
        call_seconds: What a call takes beside the engine: the way there and back.
    """

    replicas: int
    times: StepTimes
    limits: Limits = field(default_factory=Limits)
    policy: str = "round-robin"
    subset: int = 0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    attempts: int = 1
    call_seconds: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.attempts < 1 or not 0 <= self.subset <= self.replicas:
            raise ValueError(
                f"at least one replica and one attempt, and a subset of the replicas are needed, got {self}"
            )
        if self.policy not in POLICIES:
            raise ValueError(f"there is no policy {self.policy!r}; there are {', '.join(POLICIES)}")


@dataclass
class Outcome:
    """The requests of a simulation, after it."""

    fleet: Fleet
    replicas: list[Replica]
    requests: list[Request] = field(default_factory=list)
    seconds: float = 0.0
    """The time at which the last request ended."""

    @property
    def answered(self) -> list[Request]:
        """Those that were answered."""
        return [request for request in self.requests if request.ended >= 0]

    @property
    def refused(self) -> int:
        """The number of those that were refused at the last try."""
        return sum(request.ended < 0 for request in self.requests)

    def settled(self, warm_up: float) -> list[Request]:
        """Returns the answered requests that came after a time in which the replicas filled."""
        return [request for request in self.answered if request.arrived >= warm_up]

    def first_tokens(self, warm_up: float = 0.0) -> list[float]:
        """Returns the seconds from each request to its first token, sorted."""
        call = self.fleet.call_seconds
        return sorted(request.first_token - request.arrived + call for request in self.settled(warm_up))

    def waits(self, warm_up: float = 0.0) -> list[float]:
        """Returns the seconds that each request waited until its prompt was begun, sorted."""
        return sorted(request.begun - request.arrived for request in self.settled(warm_up))

    def utilization(self) -> float:
        """Returns the share of the time in which a replica was in a step, in the mean."""
        return sum(replica.busy_seconds for replica in self.replicas) / (self.seconds or 1.0) / len(self.replicas)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns the value below which a share of the sorted values lies, or 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def simulate(fleet: Fleet, requests: Iterable[Request]) -> Outcome:
    """Lets requests come to replicas until all of them are answered or refused."""
    numbers = random.Random(f"{fleet.seed} fleet")
    slow = round(fleet.slow_share * fleet.replicas)
    replicas = [
        Replica(place, fleet.times.scaled(fleet.slow_factor) if place < slow else fleet.times, fleet.limits)
        for place in range(fleet.replicas)
    ]
    policies: dict[int, Policy] = {}
    outcome = Outcome(fleet, replicas)
    # Events: the time, a number that keeps their order, and a request, or a replica and its version.
    events: list[tuple[float, int, Request | Replica, int]] = []
    order = itertools.count()
    arrivals = iter(requests)
    refreshed = 0.0

    def policy_of(client: int) -> Policy:
        if client not in policies:
            known = numbers.sample(replicas, fleet.subset) if fleet.subset else replicas
            policies[client] = POLICIES[fleet.policy](known, numbers)
        return policies[client]

    def await_end(replica: Replica) -> None:
        if replica.ends >= 0:
            heapq.heappush(events, (replica.ends, next(order), replica, replica.version))

    def offer(request: Request, now: float) -> None:
        policy = policy_of(request.client)
        replica = policy.choose()
        request.attempts += 1
        version = replica.version
        if replica.offer(request, now):
            if replica.version != version:
                await_end(replica)
            return
        policy.end(replica)
        if request.attempts < fleet.attempts:
            later = now + _RETRY_SECONDS * numbers.uniform(0.8, 1.2)
            heapq.heappush(events, (later, next(order), request, 0))

    following = next(arrivals, None)
    while following is not None or events:
        if following is not None and (not events or following.arrived <= events[0][0]):
            now, subject, version = following.arrived, following, 0
            outcome.requests.append(following)
            following = next(arrivals, None)
        else:
            now, _, event, version = heapq.heappop(events)
            if isinstance(event, Replica):
                if event.version == version:
                    for request in event.advance():
                        policies[request.client].end(event)
                    await_end(event)
                    outcome.seconds = now
                continue
            subject = event
        interval = policy_of(subject.client).refresh_seconds
        if interval and now - refreshed >= interval:
            for policy in policies.values():
                policy.refresh(now - refreshed)
            refreshed = now
        offer(subject, now)
    return outcome
