"""The requests of one engine: those that wait, and those that its process has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from abstractllm.errors import AbstractLLMError, OverloadedError
from abstractllm.providers.huggingface.engine.fair_queue import CompletionRate, FairQueue
from abstractllm.providers.huggingface.engine.pending_request import Answer, PendingRequest, as_error, copy_of, deliver
from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.messages import (
    Begun,
    Cancel,
    Counted,
    Delta,
    Done,
    Failed,
    FromEngine,
    Loaded,
)

__all__ = ["AdmissionQueue"]

_OfRequest = Begun | Delta | Done | Counted | Failed

_LEAST_AHEAD = 4
"""Requests given to a batching process beyond its slots, or an eighth of these: they are tokenized meanwhile."""
_COUNTS_AHEAD = 4
"""Prompts whose tokens are being counted at a time; these do not wait for answers."""
_BYTES_AHEAD = 16 * 2**20
"""Prompts that were sent and have not begun; one may always go."""

_SHORTEST_DELAY, _LONGEST_DELAY = 0.5, 60.0


class AdmissionQueue:
    """Gives requests to a process, a few at a time. The engine's lock is held in every method."""

    def __init__(self) -> None:
        self._generations = FairQueue()
        self._counts = FairQueue()
        self._sent: dict[int, PendingRequest] = {}
        self._rate = CompletionRate()
        self.accepted = self.released = 0
        """Requests that were taken in, and those of them that are over, however they ended."""
        self._forget_process()

    def _forget_process(self) -> None:
        self._order = 0
        """How many answers this process was asked for."""
        self._answering = self._counting = 0
        """Requests that it has."""
        self._ahead = self._bytes_ahead = 0
        """Those that it has not begun, and what they hold."""

    @property
    def queued(self) -> int:
        """Requests whose turn has not come."""
        return len(self._generations) + len(self._counts) + self._ahead

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self._sent) - self._ahead

    @property
    def is_empty(self) -> bool:
        """Whether no request is in it."""
        return not (self._sent or self.has_waiting)

    @property
    def has_waiting(self) -> bool:
        """Whether a request has not been given to a process."""
        return bool(self._generations or self._counts)

    @property
    def has_sent(self) -> bool:
        """Whether the process has a request."""
        return bool(self._sent)

    def add(self, ticket: PendingRequest, loaded: Loaded | None, limit: int, byte_limit: int) -> None:
        """Takes a request in.

        Where the queue is full, the newest request of the caller who has most in it makes place for one who has less.

        Args:
            ticket: The request.
            loaded: The model, if it is loaded.
            limit: Requests that may wait.
            byte_limit: Bytes that these may hold.

        Raises:
            ContextLengthExceededError: If it certainly does not fit the loaded model's window.
            OverloadedError: If too much waits already.
        """
        if too_long := ticket.too_long_for(loaded):
            raise too_long
        queue = self._counts if ticket.is_count else self._generations
        # What goes to the process at once does not wait.
        if queue or not (loaded and self._has_room(ticket, loaded)):
            while full := self._overload(ticket, limit, byte_limit):
                displaced = queue.displace(ticket, limit, byte_limit)
                if displaced is None:
                    raise full
                self.released += 1
                displaced.put(full)
        if not queue:
            self._rate.resume()
        queue.add(ticket)
        self.accepted += 1

    def _overload(self, ticket: PendingRequest, limit: int, byte_limit: int) -> OverloadedError | None:
        waiting = len(self._generations) + len(self._counts)
        held = self._generations.bytes + self._counts.bytes
        if waiting < limit and (not held or held + ticket.size <= byte_limit):
            return None
        delay = min(_LONGEST_DELAY, max(_SHORTEST_DELAY, waiting / self._rate.per_second))
        if waiting >= limit:
            return OverloadedError(
                f"{waiting} requests wait already, max_queue is {limit}", retry_after=delay, limit=limit
            )
        return OverloadedError(
            f"requests of {held} bytes wait already and this one has {ticket.size}, max_queue_bytes is {byte_limit}",
            retry_after=delay,
            limit=byte_limit,
            requested=ticket.size,
        )

    def pump(self, loaded: Loaded, channel: Channel[FromEngine]) -> None:
        """Sends what waits, as far as there is room."""
        for queue in (self._counts, self._generations):
            while (ticket := queue.first()) and (ticket.is_orphaned or self._has_room(ticket, loaded)):
                queue.pop()
                if ticket.is_orphaned:
                    self.released += 1
                elif too_long := ticket.too_long_for(loaded):
                    self.released += 1
                    ticket.put(too_long)
                else:
                    self._send(ticket, channel)

    def _has_room(self, ticket: PendingRequest, loaded: Loaded) -> bool:
        """Whether the process can have one more: as many as it has slots, and a few that it prepares meanwhile."""
        if ticket.is_count:
            return self._counting < _COUNTS_AHEAD
        ahead = 1 if loaded.slots == 1 else max(_LEAST_AHEAD, loaded.slots // 8)
        fits = not self._ahead or self._bytes_ahead + ticket.size <= _BYTES_AHEAD
        return fits and self._answering < loaded.slots + ahead

    def _send(self, ticket: PendingRequest, channel: Channel[FromEngine]) -> None:
        self._sent[ticket.id] = ticket
        self._ahead += 1
        self._bytes_ahead += ticket.size
        if ticket.is_count:
            self._counting += 1
        else:
            self._answering += 1
            self._order += 1
            ticket.order = self._order
        channel.send(ticket.take_frame())

    def cancel(self, ticket: PendingRequest, channel: Channel[FromEngine] | None) -> None:
        """Gives up a request; nothing happens if it is over."""
        queue = self._counts if ticket.is_count else self._generations
        if queue.discard(ticket):
            self.released += 1
        elif ticket.id in self._sent and channel and not ticket.is_count and not ticket.is_cancelled:
            ticket.is_cancelled = True
            channel.send(encode(Cancel(ticket.id, ticket.order)), urgent=True)

    def receive(self, messages: Sequence[_OfRequest], channel: Channel[FromEngine]) -> None:
        """Hands on what the process says of its requests; what belongs to one that was given up is dropped."""
        answers: list[tuple[PendingRequest, Answer]] = []
        for message in messages:
            ticket = self._sent[message.id]
            self._settle(ticket, message, channel)
            if not ticket.is_cancelled:
                answers.append((ticket, as_error(message) if isinstance(message, Failed) else message))
        deliver(answers)

    def _settle(self, ticket: PendingRequest, message: _OfRequest, channel: Channel[FromEngine]) -> None:
        if isinstance(message, Delta):
            ticket.output_tokens = message.output_tokens
            if ticket.is_orphaned:
                self.cancel(ticket, channel)
            return
        if not ticket.has_begun:
            ticket.has_begun = True
            self._ahead -= 1
            self._bytes_ahead -= ticket.size
        if isinstance(message, Begun):
            return
        del self._sent[message.id]
        self.released += 1
        if ticket.is_count:
            self._counting -= 1
            return
        self._answering -= 1
        if self._generations:
            self._rate.finish()

    def fail_sent(self, error: AbstractLLMError) -> None:
        """Fails what the process had; it has ended."""
        sent, self._sent = self._sent, {}
        self._forget_process()
        self._fail(sent.values(), error)

    def fail_all(self, error: AbstractLLMError) -> None:
        """Fails everything; the process has ended."""
        self.fail_sent(error)
        self._fail([*self._generations.clear(), *self._counts.clear()], error)

    def _fail(self, tickets: Iterable[PendingRequest], error: AbstractLLMError) -> None:
        for ticket in tickets:
            self.released += 1
            failure = copy_of(error)
            failure.output_tokens = ticket.output_tokens
            ticket.put(failure)
