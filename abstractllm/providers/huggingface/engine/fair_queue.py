"""What waits for an engine, in turns by caller, and how fast it goes."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from abstractllm.providers.huggingface.engine.pending_request import PendingRequest

__all__ = ["CompletionRate", "FairQueue"]

_FIRST_GUESS = 10.0
"""Requests finished per second, before any was."""
_MEMORY = 10.0
"""Seconds after which what was measured counts for a third."""


@dataclass(slots=True)
class _Line:
    """What one caller has waiting, oldest first."""

    tickets: OrderedDict[int, PendingRequest] = field(default_factory=OrderedDict)
    bytes: int = 0


class FairQueue:
    """Waiting requests, of which the callers' are taken in turns: one with five hundred does not starve one with one.

    Adding, taking and discarding take the same time however much waits.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        """By caller; the first one's turn is next."""
        self._length = 0
        self.bytes = 0
        """What the requests hold."""

    def __len__(self) -> int:
        return self._length

    def add(self, ticket: PendingRequest) -> None:
        """Takes a request in, at the end of its caller's line."""
        line = self._lines.setdefault(ticket.caller, _Line())
        line.tickets[ticket.id] = ticket
        self._count(line, ticket, 1)

    def first(self) -> PendingRequest | None:
        """The request whose turn is next."""
        for line in self._lines.values():
            return next(iter(line.tickets.values()))
        return None

    def pop(self) -> PendingRequest:
        """Takes the request whose turn is next; then it is the next caller's turn."""
        caller, line = next(iter(self._lines.items()))
        self._lines.move_to_end(caller)
        ticket = next(iter(line.tickets.values()))
        self.discard(ticket)
        return ticket

    def discard(self, ticket: PendingRequest) -> bool:
        """Takes a request out, if it is there; says whether it was."""
        line = self._lines.get(ticket.caller)
        if line is None or line.tickets.pop(ticket.id, None) is None:
            return False
        self._count(line, ticket, -1)
        if not line.tickets:
            del self._lines[ticket.caller]
        return True

    def displace(self, newcomer: PendingRequest, limit: int, byte_limit: int) -> PendingRequest | None:
        """Takes out the newest request of the caller who has most of the queue, if that is more than the newcomer's.

        Args:
            newcomer: Who wants to come in.
            limit: Requests that may wait.
            byte_limit: Bytes that may wait.

        Returns:
            The request; None if the newcomer's caller would then have as much as any other.
        """

        def share(requests: int, bytes_: int) -> float:
            return max(requests / limit if limit else 0.0, bytes_ / byte_limit)

        own = self._lines.get(newcomer.caller, _Line())
        greatest = max(self._lines.values(), key=lambda line: share(len(line.tickets), line.bytes), default=own)
        if share(len(greatest.tickets), greatest.bytes) <= share(len(own.tickets) + 1, own.bytes + newcomer.size):
            return None
        ticket = next(reversed(greatest.tickets.values()))
        self.discard(ticket)
        return ticket

    def clear(self) -> list[PendingRequest]:
        """Takes everything out."""
        tickets = [ticket for line in self._lines.values() for ticket in line.tickets.values()]
        self.__init__()  # type: ignore[misc]
        return tickets

    def _count(self, line: _Line, ticket: PendingRequest, sign: int) -> None:
        line.bytes += sign * ticket.size
        self.bytes += sign * ticket.size
        self._length += sign


class CompletionRate:
    """Requests finished per second of late, measured while some wait: what happens in an idle engine tells nothing."""

    def __init__(self) -> None:
        self._finished, self._seconds = _FIRST_GUESS, 1.0
        self._since = time.monotonic()

    @property
    def per_second(self) -> float:
        """The rate."""
        self._pass_time()
        return self._finished / self._seconds

    def resume(self) -> None:
        """The first request begins to wait; what was known before counts as one second's worth."""
        self._finished, self._seconds = self._finished / self._seconds, 1.0
        self._since = time.monotonic()

    def finish(self) -> None:
        """A request has ended."""
        self._pass_time()
        self._finished += 1

    def _pass_time(self) -> None:
        now = time.monotonic()
        kept = math.exp((self._since - now) / _MEMORY)
        self._finished *= kept
        self._seconds = self._seconds * kept + _MEMORY * (1 - kept)
        self._since = now
