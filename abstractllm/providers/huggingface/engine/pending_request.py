"""A request on its way through an engine, seen from the one who waits for its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby

from abstractllm import errors
from abstractllm.errors import AbstractLLMError, ContextLengthExceededError
from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.messages import (
    Begun,
    Count,
    Counted,
    Delta,
    Done,
    Failed,
    Generate,
    Loaded,
    LoadFailed,
    join_deltas,
)

__all__ = ["Answer", "PendingRequest", "as_error", "copy_of", "deliver"]

Answer = Begun | Delta | Done | Counted | AbstractLLMError

_LOOSE_ANSWERS = 32
"""Answers that are kept as they came; more that nobody has read are joined."""

_ERRORS: dict[str, type[AbstractLLMError]] = {
    kind.default_reason: kind
    for kind in (
        errors.InternalError,
        errors.InvalidRequestError,
        errors.ContextLengthExceededError,
        errors.UnsupportedFeatureError,
        errors.UnsupportedParameterError,
        errors.ConfigurationError,
        errors.ModelNotFoundError,
        errors.ModelLoadError,
        errors.ProviderCredentialsError,
    )
}
"""What an engine process reports in `Failed` and `LoadFailed`."""


class PendingRequest:
    """One request's place in an engine. It belongs to the event loop that it was made in.

    Pieces of text that its reader does not take in time are joined, so that one who is slow gets fewer and larger ones,
    and no more memory is held than the answer takes.

    Args:
        message: The request.
        caller: Who asks; callers take turns.

    Raises:
        ValueError: If it is too long for the channel.
    """

    def __init__(self, message: Generate | Count, caller: str) -> None:
        self.id = message.id
        self.caller = caller
        self.is_count = isinstance(message, Count)
        self._frame = encode(message)
        self.size = len(self._frame)
        """Bytes of the request."""
        self.order = 0
        """Which one it is of those that the process was sent, from 1."""
        self.has_begun = self.is_cancelled = False
        self.output_tokens: int | None = None
        """Tokens generated so far; None where not known."""
        texts = (turn.text.strip() for turn in message.conversation.turns if turn.role == "user")
        self._longest = max(map(len, texts), default=0)
        self.loop = asyncio.get_running_loop()
        self._answers: deque[Answer] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def take_frame(self) -> bytes:
        """The request as it is sent, once: it is not kept."""
        frame, self._frame = self._frame, b""
        return frame

    def put(self, answer: Answer) -> None:
        """Hands an answer to the waiting request, from any thread."""
        deliver([(self, answer)])

    async def next_answer(self) -> Answer:
        """Waits for the next answer; for one reader, in the ticket's event loop."""
        if not self._answers:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        elif len(self._answers) > 1:
            self._answers = _joined(self._answers)
        return self._answers.popleft()

    def put_here(self, answer: Answer) -> None:
        """As `put`, in the ticket's event loop."""
        self._answers.append(answer)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif len(self._answers) > _LOOSE_ANSWERS:
            self._answers = _joined(self._answers)

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


def deliver(answers: Sequence[tuple[PendingRequest, Answer]]) -> None:
    """Hands answers to the waiting requests, from any thread: each event loop is woken once.

    A request whose event loop has ended gets none.
    """
    loops: dict[asyncio.AbstractEventLoop, list[tuple[PendingRequest, Answer]]] = {}
    for ticket, answer in answers:
        loops.setdefault(ticket.loop, []).append((ticket, answer))
    for loop, own in loops.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_put_all, own)


def _put_all(answers: Sequence[tuple[PendingRequest, Answer]]) -> None:
    for ticket, answer in answers:
        ticket.put_here(answer)


def _joined(answers: Iterable[Answer]) -> deque[Answer]:
    """The same answers, with pieces of one kind that follow each other made one."""
    joined: deque[Answer] = deque()
    for kind, found in groupby(answers, type):
        group = list(found)
        deltas = [answer for answer in group if isinstance(answer, Delta)]
        joined.extend(join_deltas(deltas) if kind is Delta else group)
    return joined


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
    return type(error)(
        error.message, field=error.field, limit=error.limit, requested=error.requested, retry_after=error.retry_after
    )
