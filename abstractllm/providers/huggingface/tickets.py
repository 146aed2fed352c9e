"""The requests of one engine: those that wait, and those that its process has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence

from abstractllm import errors
from abstractllm.errors import AbstractLLMError, ContextLengthExceededError, OverloadedError
from abstractllm.providers.huggingface.worker.channel import Channel, encode
from abstractllm.providers.huggingface.worker.protocol import (
    Begun,
    Cancel,
    Count,
    Counted,
    Delta,
    Done,
    Failed,
    FromEngine,
    Generate,
    Loaded,
    LoadFailed,
)

__all__ = ["Answer", "Ticket", "TicketQueue", "as_error", "copy_of"]

Answer = Begun | Delta | Done | Counted | AbstractLLMError
_OfRequest = Begun | Delta | Done | Counted | Failed

_LEAST_AHEAD = 4
"""Requests given to a batching process beyond its slots, or an eighth of these: they are tokenized meanwhile."""

_ERRORS: dict[str, type[AbstractLLMError]] = {
    kind.default_reason: kind
    for kind in (
        errors.InternalError,
        errors.InvalidRequestError,
        errors.ContextLengthExceededError,
        errors.UnsupportedFeatureError,
        errors.ConfigurationError,
        errors.ModelNotFoundError,
        errors.ModelLoadError,
        errors.ProviderCredentialsError,
    )
}
"""What an engine process reports in `Failed` and `LoadFailed`."""


class Ticket:
    """One request's place in an engine. It belongs to the event loop that it was made in.

    Args:
        message: The request.

    Raises:
        ValueError: If it is too long for the channel.
    """

    def __init__(self, message: Generate | Count) -> None:
        self.id = message.id
        self.is_count = isinstance(message, Count)
        self.frame = encode(message)
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        self.began: float | None = None
        texts = (turn.text.strip() for turn in message.conversation if turn.role == "user")
        self._longest = max(map(len, texts), default=0)
        self.loop = asyncio.get_running_loop()

    def put(self, answer: Answer) -> None:
        """Hands an answer to the waiting request, from any thread."""
        deliver([(self, answer)])

    @property
    def is_orphaned(self) -> bool:
        """Whether nobody can read the answers any more."""
        return self.loop.is_closed()

    def too_long_for(self, loaded: Loaded | None) -> ContextLengthExceededError | None:
        """The error of a message that cannot fit the model's window, whatever its tokens are."""
        if loaded is None or loaded.max_characters is None or self._longest <= loaded.max_characters:
            return None
        return ContextLengthExceededError(
            f"prompt: {self._longest} characters cannot fit the context window of {loaded.context_window} tokens",
            field="prompt",
            limit=loaded.context_window,
            requested=f"{self._longest} characters",
        )


def deliver(answers: Sequence[tuple[Ticket, Answer]]) -> None:
    """Hands answers to the waiting requests, from any thread: each event loop is woken once.

    A request whose event loop has ended gets none.
    """
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Answer]]] = {}
    for ticket, answer in answers:
        loops.setdefault(ticket.loop, []).append((ticket, answer))
    for loop, own in loops.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_put_all, own)


def _put_all(answers: Sequence[tuple[Ticket, Answer]]) -> None:
    for ticket, answer in answers:
        ticket.answers.put_nowait(answer)


class TicketQueue:
    """Gives requests to a process in their order, a few at a time. The engine's lock is held in every method."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._sent: dict[int, Ticket] = {}
        self._seconds_each = 1.0
        """How long an answer takes, as a moving average."""

    @property
    def queued(self) -> int:
        """Requests whose turn has not come."""
        return len(self._waiting) + sum(ticket.began is None for ticket in self._sent.values())

    @property
    def is_empty(self) -> bool:
        """Whether no request is in it."""
        return not (self._waiting or self._sent)

    @property
    def has_waiting(self) -> bool:
        """Whether a request has not been given to a process."""
        return bool(self._waiting)

    def add(self, ticket: Ticket, loaded: Loaded | None, limit: int) -> None:
        """Takes a request in.

        Raises:
            ContextLengthExceededError: If it certainly does not fit the loaded model's window.
            OverloadedError: If `limit` requests wait already.
        """
        if too_long := ticket.too_long_for(loaded):
            raise too_long
        if len(self._waiting) >= limit and not (loaded and self._has_room(ticket, loaded)):
            raise OverloadedError(
                f"{len(self._waiting)} requests wait already, the limit is {limit}",
                retry_after=min(
                    60.0, max(0.5, self._seconds_each * len(self._waiting) / (loaded.slots if loaded else 1))
                ),
                limit=limit,
            )
        self._waiting.append(ticket)

    def pump(self, loaded: Loaded, channel: Channel[FromEngine]) -> None:
        """Sends what waits, as far as there is room; counting a prompt's tokens does not wait for answers."""
        for ticket in tuple(self._waiting):
            if ticket.is_orphaned:
                self._waiting.remove(ticket)
            elif too_long := ticket.too_long_for(loaded):
                self._waiting.remove(ticket)
                ticket.put(too_long)
            elif self._has_room(ticket, loaded):
                self._waiting.remove(ticket)
                self._sent[ticket.id] = ticket
                channel.send(ticket.frame)

    def cancel(self, ticket: Ticket, channel: Channel[FromEngine] | None) -> None:
        """Gives up a request; nothing happens if it is over."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket.id in self._sent and channel:
            channel.send(encode(Cancel(ticket.id)), urgent=True)

    def receive(self, messages: Sequence[_OfRequest], channel: Channel[FromEngine]) -> None:
        """Hands on what the process says of its requests."""
        deliver([self._settle(message, channel) for message in messages])

    def _settle(self, message: _OfRequest, channel: Channel[FromEngine]) -> tuple[Ticket, Answer]:
        ticket = self._sent[message.id]
        match message:
            case Begun():
                ticket.began = time.monotonic()
            case Delta():
                if ticket.is_orphaned:
                    self.cancel(ticket, channel)
            case _:
                del self._sent[message.id]
                if ticket.began is not None:
                    self._seconds_each += 0.2 * (time.monotonic() - ticket.began - self._seconds_each)
        return ticket, as_error(message) if isinstance(message, Failed) else message

    def fail_sent(self, error: AbstractLLMError) -> None:
        """Fails what the process had."""
        sent, self._sent = self._sent, {}
        for ticket in sent.values():
            ticket.put(copy_of(error))

    def fail_all(self, error: AbstractLLMError) -> None:
        """Fails everything."""
        self.fail_sent(error)
        waiting, self._waiting = self._waiting, deque()
        for ticket in waiting:
            ticket.put(copy_of(error))

    def _has_room(self, ticket: Ticket, loaded: Loaded) -> bool:
        """Whether the process can have one more: as many as it has slots, and a few that it prepares meanwhile."""
        ahead = 1 if loaded.slots == 1 else max(_LEAST_AHEAD, loaded.slots // 8)
        return ticket.is_count or sum(not other.is_count for other in self._sent.values()) < loaded.slots + ahead


def as_error(message: Failed | LoadFailed) -> AbstractLLMError:
    """The error that a process reports."""
    kind = _ERRORS.get(message.reason, errors.InternalError)
    if isinstance(message, LoadFailed):
        return kind(message.message, field=message.field)
    return kind(
        message.message,
        field=message.field,
        limit=message.limit,
        requested=message.requested,
        output_tokens=message.output_tokens,
    )


def copy_of(error: AbstractLLMError) -> AbstractLLMError:
    """The same error for another request: each is filled with its own request id."""
    return type(error)(error.message, field=error.field, retry_after=error.retry_after)
