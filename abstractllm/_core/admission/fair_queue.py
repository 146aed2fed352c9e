"""The requests that wait, in turns by caller, weighted by tokens."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from abstractllm._core.admission.ticket import Ticket
from abstractllm._core.admission.virtual_time import VirtualTime

__all__ = ["FairQueue"]

T = TypeVar("T", bound=Ticket)


@dataclass(slots=True, eq=False)
class _CallerLine(Generic[T]):
    """The waiting requests of one caller: in each lane oldest first."""

    lanes: dict[Hashable, OrderedDict[T, None]] = field(default_factory=dict)
    length: int = 0
    bytes: int = 0
    tokens: int = 0
    entry: int = 0
    """The number of its entry in the order of callers; earlier ones are void."""

    def heads(self) -> list[T]:
        """Returns the first request of each lane, oldest first."""
        if len(self.lanes) == 1:
            return [next(iter(lane)) for lane in self.lanes.values()]
        return sorted((next(iter(lane)) for lane in self.lanes.values()), key=lambda ticket: ticket.number)

    def newest(self) -> Iterator[T]:
        """Yields the requests, the one that came last first."""
        lanes = (reversed(lane) for lane in self.lanes.values())
        return heapq.merge(*lanes, key=lambda ticket: ticket.number, reverse=True)


class FairQueue(Generic[T]):
    """Waiting requests, of which the next is one of the caller who has got fewest tokens.

    A caller is charged the tokens that a request is expected to take when it is taken, and at its end the difference to
    those that it took. So one caller with five hundred long prompts, and ten with short ones, get the same number of
    tokens, as long as they want them. Adding, taking and discarding look at no other requests, however many wait.
    """

    def __init__(self) -> None:
        self._time = VirtualTime()
        self._lines: dict[str, _CallerLine[T]] = {}
        self._order: list[tuple[float, int, str]] = []
        """A heap of callers by their virtual time, in which entries may be void."""
        self._entries = itertools.count(1)
        self._arrivals = itertools.count(1)
        self._running: Counter[str] = Counter()
        """Requests that were taken and are not over, by caller."""
        self._length = 0
        self.bytes = 0
        """Bytes that the requests hold."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return (ticket for line in self._lines.values() for lane in line.lanes.values() for ticket in lane)

    @property
    def callers(self) -> Iterable[str]:
        """The callers of the requests."""
        return self._lines.keys()

    def time_of(self, caller: str) -> float:
        """Returns a caller's virtual time, in tokens: of two, the one with less has got less of late."""
        return self._time[caller]

    def has_any(self, caller: str) -> bool:
        """Returns True if a caller has a request that waits or runs."""
        return caller in self._lines or caller in self._running

    @property
    def running_callers(self) -> Iterable[str]:
        """The callers of requests that were taken and are not over."""
        return self._running.keys()

    def held_by(self, caller: str) -> tuple[int, int]:
        """Returns the number of a caller's requests, and their bytes."""
        line = self._lines.get(caller)
        return (line.length, line.bytes) if line else (0, 0)

    def newest_of(self, caller: str) -> Iterator[T]:
        """Yields the requests of a caller, the one that came last first."""
        line = self._lines.get(caller)
        return line.newest() if line else iter(())

    def add(self, ticket: T) -> None:
        """Takes a request in, behind the others of its caller."""
        ticket.number = next(self._arrivals)
        self._time.enter(ticket.caller)
        line = self._lines.get(ticket.caller)
        if line is None:
            line = self._lines[ticket.caller] = _CallerLine()
            self._place(ticket.caller, line)
        line.lanes.setdefault(ticket.lane, OrderedDict())[ticket] = None
        self._count(line, ticket, 1)

    def first(self, is_held: Callable[[T], bool] | None = None) -> T | None:
        """Returns the request whose turn is next.

        Args:
            is_held: Returns True for a request that must still wait, together with those behind it in its lane; others
                are taken before it.
        """
        held: list[tuple[float, int, str]] = []
        try:
            while self._order:
                _, entry, caller = self._order[0]
                line = self._lines.get(caller)
                if line is None or line.entry != entry:
                    heapq.heappop(self._order)
                    continue
                for ticket in line.heads():
                    if is_held is None or not is_held(ticket):
                        return ticket
                held.append(heapq.heappop(self._order))
            return None
        finally:
            for place in held:
                heapq.heappush(self._order, place)

    def take(self, ticket: T) -> None:
        """Takes the first request of a lane, and charges its caller; `end` must follow."""
        self._remove(ticket)
        ticket.charged = ticket.tokens
        self._time.serve(ticket.caller, ticket.charged)
        self._running[ticket.caller] += 1
        self._move(ticket.caller)

    def charge(self, ticket: T, tokens: int) -> None:
        """Corrects what the caller of a request that was taken is charged for it."""
        self._time.charge(ticket.caller, tokens - ticket.charged)
        ticket.charged = tokens
        self._move(ticket.caller)

    def end(self, ticket: T, tokens: int) -> None:
        """Ends a request that was taken, and charges its caller the tokens that it took."""
        self.charge(ticket, tokens)
        self._time.leave(ticket.caller)
        self._running[ticket.caller] -= 1
        if not self._running[ticket.caller]:
            del self._running[ticket.caller]

    def discard(self, ticket: T) -> bool:
        """Takes a request out that has not had its turn; returns False if it is not in the queue."""
        if not self._remove(ticket):
            return False
        self._time.leave(ticket.caller)
        return True

    def ahead_of(self, newcomer: T) -> tuple[float, float]:
        """Returns the requests, and their tokens, that would have their turns before a newcomer."""
        line = self._lines.get(newcomer.caller)
        requests, tokens = (line.length, line.tokens) if line else (0, 0)
        begin = self._time[newcomer.caller] + tokens
        ahead = float(requests), float(tokens)
        for caller, other in self._lines.items():
            lag = begin - self._time[caller]
            if other is line or lag < 0:
                continue
            # The request in which the other caller's time passes the newcomer's is taken as a whole. Others may come
            # before the newcomer's turn: as many as the caller has running.
            usual = other.tokens / other.length
            share = min(other.tokens + usual * self._running[caller], lag + usual)
            ahead = ahead[0] + share / usual, ahead[1] + share
        return ahead

    def clear(self) -> list[T]:
        """Takes everything out that waits."""
        tickets = list(self)
        for ticket in tickets:
            self.discard(ticket)
        return tickets

    def _remove(self, ticket: T) -> bool:
        line = self._lines.get(ticket.caller)
        lane = line.lanes.get(ticket.lane) if line else None
        if line is None or lane is None or ticket not in lane:
            return False
        del lane[ticket]
        if not lane:
            del line.lanes[ticket.lane]
        self._count(line, ticket, -1)
        if not line.length:
            del self._lines[ticket.caller]
        return True

    def _move(self, caller: str) -> None:
        """Gives a caller the place that follows from their time."""
        line = self._lines.get(caller)
        if line is not None:
            self._place(caller, line)

    def _place(self, caller: str, line: _CallerLine[T]) -> None:
        line.entry = next(self._entries)
        heapq.heappush(self._order, (self._time[caller], line.entry, caller))
        if len(self._order) > 4 * len(self._lines) + 64:
            self._order = [place for place in self._order if self._is_valid(place)]
            heapq.heapify(self._order)

    def _is_valid(self, place: tuple[float, int, str]) -> bool:
        line = self._lines.get(place[2])
        return line is not None and line.entry == place[1]

    def _count(self, line: _CallerLine[T], ticket: T, sign: int) -> None:
        line.length += sign
        line.bytes += sign * ticket.size
        line.tokens += sign * ticket.tokens
        self.bytes += sign * ticket.size
        self._length += sign
