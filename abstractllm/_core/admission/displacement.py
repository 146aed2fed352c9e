"""The requests that give up their place where the queue is full and a caller comes who has less in it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TypeVar

from abstractllm._core.admission.fair_queue import FairQueue
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm._core.admission.ticket import Ticket

__all__ = ["displaced_by"]

T = TypeVar("T", bound=Ticket)


def displaced_by(newcomer: T, queues: Sequence[FairQueue[T]], limits: AdmissionLimits) -> list[T] | None:
    """Chooses the requests that have to make place for a newcomer.

    They are the newest of the caller who has most of what waits, as long as that is more than the newcomer's caller
    would have. Nothing is changed: where all that could go would not make enough room, none of them goes.

    Args:
        newcomer: The request that is to wait.
        queues: The queues in which requests wait under the same limits.
        limits: The limits.

    Returns:
        The requests, none where there is room already; None if there is no room for the newcomer.
    """
    waiting, waiting_bytes = sum(map(len, queues)), sum(queue.bytes for queue in queues)
    if _has_room(newcomer, waiting, waiting_bytes, limits):
        return []
    held = {caller: _held_by(caller, queues) for queue in queues for caller in queue.callers}
    newest: dict[str, Iterator[T]] = {}
    victims: list[T] = []
    requests, size = _held_by(newcomer.caller, queues)
    own_share = _share(requests + 1, size + newcomer.size, limits)
    while not _has_room(newcomer, waiting, waiting_bytes, limits):
        largest = max(held, key=lambda caller: _share(*held[caller], limits), default=newcomer.caller)
        if largest == newcomer.caller or _share(*held[largest], limits) <= own_share:
            return None
        victim = next(newest.setdefault(largest, _newest_of(largest, queues)))
        victims.append(victim)
        requests, size = held[largest]
        held[largest] = requests - 1, size - victim.size
        waiting, waiting_bytes = waiting - 1, waiting_bytes - victim.size
    return victims


def _has_room(newcomer: T, waiting: int, waiting_bytes: int, limits: AdmissionLimits) -> bool:
    """Returns True if a request may wait beside so many others, of so many bytes; alone it may have any size."""
    is_within_bytes = not waiting_bytes or waiting_bytes + newcomer.size <= limits.max_queue_bytes
    return waiting < limits.max_queue and is_within_bytes


def _held_by(caller: str, queues: Sequence[FairQueue[T]]) -> tuple[int, int]:
    """Returns the number of a caller's requests that wait, and their bytes."""
    requests, sizes = zip(*(queue.held_by(caller) for queue in queues), strict=True)
    return sum(requests), sum(sizes)


def _share(requests: int, size: int, limits: AdmissionLimits) -> float:
    """Returns the part of the room for what waits that so many requests, of so many bytes together, take."""
    return max(requests / limits.max_queue if limits.max_queue else 0.0, size / limits.max_queue_bytes)


def _newest_of(caller: str, queues: Sequence[FairQueue[T]]) -> Iterator[T]:
    """Yields a caller's requests that wait, the one that came last first."""
    lines = (queue.newest_of(caller) for queue in queues)
    return heapq.merge(*lines, key=lambda ticket: (ticket.arrived_at, ticket.number), reverse=True)
