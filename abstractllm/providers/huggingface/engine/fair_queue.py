"""The requests that wait for an engine, in turns by caller, and the rate at which requests are completed."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from abstractllm.providers.huggingface.engine.pending_request import PendingRequest

__all__ = ["CompletionRate", "FairQueue"]

_INITIAL_RATE = 10.0
"""Requests completed per second, before any was."""
_TIME_CONSTANT = 10.0
"""Seconds after which what was measured counts for a third."""


@dataclass(slots=True)
class _CallerQueue:
    """The waiting requests of one caller and kind, oldest first."""

    requests: OrderedDict[int, PendingRequest] = field(default_factory=OrderedDict)
    bytes: int = 0


class FairQueue:
    """Waiting requests, of which the callers' are taken in turns: one with five hundred does not starve one with one.

    Requests with a format that is new to the process have turns of their own: they hold up no others of their caller.
    Adding, taking and discarding take the same time however much waits.
    """

    def __init__(self) -> None:
        self._callers: OrderedDict[tuple[str, bool], _CallerQueue] = OrderedDict()
        """The queues by caller and kind; the first one's turn is next."""
        self._length = 0
        self.bytes = 0
        """Bytes that the requests hold."""

    def __len__(self) -> int:
        return self._length

    def add(self, request: PendingRequest) -> None:
        """Takes a request in, behind the others of its caller."""
        queue = self._callers.setdefault(request.turn, _CallerQueue())
        queue.requests[request.id] = request
        self._count(queue, request, 1)

    def first(self, is_held: Callable[[PendingRequest], bool] | None = None) -> PendingRequest | None:
        """Returns the request whose turn is next.

        Args:
            is_held: Returns True for a request that must still wait, together with those behind it; others are taken
                before it.
        """
        for queue in self._callers.values():
            request = next(iter(queue.requests.values()))
            if is_held is None or not is_held(request):
                return request
        return None

    def pop(self) -> PendingRequest:
        """Takes the request whose turn is next; then it is the next caller's turn."""
        request = next(iter(next(iter(self._callers.values())).requests.values()))
        self.take(request)
        return request

    def take(self, request: PendingRequest) -> None:
        """Takes the first request of a caller; then it is the next caller's turn."""
        self._callers.move_to_end(request.turn)
        self.discard(request)

    def discard(self, request: PendingRequest) -> bool:
        """Takes a request out; returns False if it is not in the queue."""
        queue = self._callers.get(request.turn)
        if queue is None or queue.requests.pop(request.id, None) is None:
            return False
        self._count(queue, request, -1)
        if not queue.requests:
            del self._callers[request.turn]
        return True

    def displace(self, newcomer: PendingRequest, limit: int, byte_limit: int) -> PendingRequest | None:
        """Takes out the newest request of the caller who has most of the queue, if that is more than the newcomer's.

        Args:
            newcomer: The request that needs room.
            limit: Requests that may wait.
            byte_limit: Bytes that may wait.

        Returns:
            The request; None if the newcomer's caller would then have as much as any other.
        """

        def share(requests: int, bytes_: int) -> float:
            return max(requests / limit if limit else 0.0, bytes_ / byte_limit)

        def share_of(queues: Iterable[_CallerQueue]) -> float:
            return share(sum(len(queue.requests) for queue in queues), sum(queue.bytes for queue in queues))

        callers: dict[str, list[_CallerQueue]] = {newcomer.caller: []}
        for (caller, _), queue in self._callers.items():
            callers.setdefault(caller, []).append(queue)
        queues = callers[newcomer.caller]
        largest = max(callers.values(), key=share_of)
        share_with_newcomer = share(
            sum(len(queue.requests) for queue in queues) + 1, sum(queue.bytes for queue in queues) + newcomer.size
        )
        if share_of(largest) <= share_with_newcomer:
            return None
        request = max((next(reversed(queue.requests.values())) for queue in largest), key=lambda last: last.id)
        self.discard(request)
        return request

    def clear(self) -> list[PendingRequest]:
        """Takes everything out."""
        requests = [request for queue in self._callers.values() for request in queue.requests.values()]
        self._callers.clear()
        self._length = self.bytes = 0
        return requests

    def _count(self, queue: _CallerQueue, request: PendingRequest, sign: int) -> None:
        queue.bytes += sign * request.size
        self.bytes += sign * request.size
        self._length += sign


class CompletionRate:
    """Requests completed per second of late, measured while some wait: an idle engine completes few."""

    def __init__(self) -> None:
        self._completed, self._seconds = _INITIAL_RATE, 1.0
        self._since = time.monotonic()

    @property
    def per_second(self) -> float:
        """The rate."""
        self._decay()
        return self._completed / self._seconds

    def resume(self) -> None:
        """The first request begins to wait; what was measured before counts as one second's worth."""
        self._completed, self._seconds = self._completed / self._seconds, 1.0
        self._since = time.monotonic()

    def record(self) -> None:
        """A request was completed."""
        self._decay()
        self._completed += 1

    def _decay(self) -> None:
        """Counts the time since the last measurement, and lets what is older count for less."""
        now = time.monotonic()
        weight = math.exp((self._since - now) / _TIME_CONSTANT)
        self._completed *= weight
        self._seconds = self._seconds * weight + _TIME_CONSTANT * (1 - weight)
        self._since = now
