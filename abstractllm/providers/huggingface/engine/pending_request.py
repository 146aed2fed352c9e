"""A request on its way through an engine, and the answers on their way back to the caller that waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from abstractllm._core.admission.ticket import Ticket
from abstractllm.errors import AbstractLLMError, ContextLengthExceededError, ProviderProtocolError, error_class
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
    pack_deltas,
    unpack_deltas,
)

__all__ = ["Answer", "PendingRequest", "as_error", "deliver"]

Answer = Begun | Delta | Done | Counted | AbstractLLMError

_MAX_UNREAD = 32
"""Pieces that are kept as they came; when there are more that nobody has read, they are packed."""


class PendingRequest(Ticket):
    """One request in an engine. It belongs to the event loop that it was made in.

    Pieces of text that its reader does not take in time are packed, and joined once it comes back: a slow reader gets
    fewer and larger ones, and no more memory is held than the answer takes on its way.

    Args:
        message: The request.
        caller: The caller's name; callers take turns.
        deadline: The time, on the clock of `time.monotonic`, at which the whole answer must be there; None for none.

    Raises:
        ValueError: If it is too long for the channel.
    """

    def __init__(self, message: Generate | Count, caller: str, deadline: float | None = None) -> None:
        self._frame = encode(message)
        super().__init__(
            caller,
            len(self._frame),
            max_tokens=None if isinstance(message, Count) else message.sampling.max_tokens,
            deadline=deadline,
            is_count=isinstance(message, Count),
        )
        self.id = message.id
        self.format_key = _format_key(message)
        """The key of the answer's format: equal ones are compiled once. Empty where it has none."""
        self.has_new_format = False
        """True while the process has not answered with this format."""
        self.order = 0
        """Its position among the requests that the process was sent, from 1."""
        self.has_begun = self.is_cancelled = False
        self.output_tokens: int | None = None
        """Tokens generated so far; None where not known."""
        texts = (turn.text.strip() for turn in message.conversation.turns if turn.role == "user")
        self._longest_text = max(map(len, texts), default=0)
        self.loop = asyncio.get_running_loop()
        self._answers: deque[Answer | _PackedDeltas] = deque()
        self._unpacked = 0
        """Pieces that have come since the last ones were packed or read."""
        self._reader: asyncio.Future[None] | None = None

    @property
    def lane(self) -> bool:
        """The line that it stands in: new formats, which may be held up, hold up no others of their caller."""
        return self.has_new_format

    def take_frame(self) -> bytes:
        """Returns the request as it is sent, once: it is not kept."""
        frame, self._frame = self._frame, b""
        return frame

    def put(self, answer: Answer) -> None:
        """Hands an answer to the reader, from any thread."""
        deliver([(self, answer)])

    async def next_answer(self) -> Answer:
        """Waits for the next answer; for one reader, in the request's event loop."""
        if not self._answers:
            self._reader = self.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        elif len(self._answers) > 1 or isinstance(self._answers[0], _PackedDeltas):
            self._answers, self._unpacked = _joined(self._answers), 0
        answer = self._answers.popleft()
        assert not isinstance(answer, _PackedDeltas)
        return answer

    def put_in_loop(self, answer: Answer) -> None:
        """Hands an answer to the reader, in the request's event loop."""
        self._answers.append(answer)
        if self._reader is not None:
            if not self._reader.done():
                self._reader.set_result(None)
            return
        self._unpacked += isinstance(answer, Delta)
        if self._unpacked > _MAX_UNREAD:
            self._answers, self._unpacked = _packed(self._answers), 0

    @property
    def is_orphaned(self) -> bool:
        """True once nobody can read the answers any more."""
        return self.loop.is_closed()

    def too_long_for(self, loaded: Loaded | None) -> ContextLengthExceededError | None:
        """Returns the error of a message that cannot fit the model's window, whatever its tokens are."""
        if loaded is None or loaded.max_characters is None or self._longest_text <= loaded.max_characters:
            return None
        return ContextLengthExceededError(
            f"prompt: {self._longest_text} characters cannot fit the context window of {loaded.context_window} tokens",
            field="prompt",
            limit=loaded.context_window,
            requested=f"{self._longest_text} characters",
        )


def deliver(answers: Sequence[tuple[PendingRequest, Answer]]) -> None:
    """Hands answers to the readers of their requests, from any thread: each event loop is woken once.

    A request whose event loop has ended gets none.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[PendingRequest, Answer]]] = {}
    for request, answer in answers:
        by_loop.setdefault(request.loop, []).append((request, answer))
    for loop, loop_answers in by_loop.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_put_all, loop_answers)


def _put_all(answers: Sequence[tuple[PendingRequest, Answer]]) -> None:
    for request, answer in answers:
        request.put_in_loop(answer)


class _PackedDeltas:
    """Consecutive pieces that wait for their reader, encoded: log-probabilities take an eighth of their memory then."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._open: list[Delta] = []

    def add(self, delta: Delta) -> None:
        """Adds a piece that came after those that are here; it is encoded by `seal`."""
        self._open.append(delta)

    def seal(self) -> None:
        """Encodes what was added."""
        if self._open:
            self._frames.append(pack_deltas(self._open))
            self._open.clear()

    def unpack(self) -> Iterator[Delta]:
        """Yields the pieces in their order."""
        for frame in self._frames:
            yield from unpack_deltas(frame)


def _packed(answers: Iterable[Answer | _PackedDeltas]) -> deque[Answer | _PackedDeltas]:
    """Returns the same answers, with consecutive pieces packed."""
    packed: deque[Answer | _PackedDeltas] = deque()
    pack = _PackedDeltas()
    for answer in answers:
        if isinstance(answer, Delta):
            pack.add(answer)
            if not (packed and packed[-1] is pack):
                packed.append(pack)
        else:
            pack = answer if isinstance(answer, _PackedDeltas) else _PackedDeltas()
            packed.append(answer)
    for answer in packed:
        if isinstance(answer, _PackedDeltas):
            answer.seal()
    return packed


def _joined(answers: Iterable[Answer | _PackedDeltas]) -> deque[Answer | _PackedDeltas]:
    """Returns the same answers, with packed pieces unpacked, and consecutive pieces of one kind joined."""
    joined: deque[Answer | _PackedDeltas] = deque()
    for kind, group in groupby(_unpacked(answers), type):
        members = list(group)
        deltas = [answer for answer in members if isinstance(answer, Delta)]
        joined.extend(join_deltas(deltas) if kind is Delta else members)
    return joined


def _unpacked(answers: Iterable[Answer | _PackedDeltas]) -> Iterator[Answer]:
    """Yields the same answers, with packed pieces one by one."""
    for answer in answers:
        if isinstance(answer, _PackedDeltas):
            yield from answer.unpack()
        else:
            yield answer


def as_error(message: Failed | LoadFailed) -> AbstractLLMError:
    """Returns the error that a process reports."""
    kind = error_class(message.reason)
    if isinstance(message, LoadFailed):
        return kind(message.message, field=message.field)
    error = kind(
        message.message,
        field=message.field,
        limit=message.limit,
        requested=message.requested,
        output_tokens=message.output_tokens,
    )
    # A model whose logits are not finite has worked for it, and would again, to the same end.
    error.is_billed = isinstance(error, ProviderProtocolError)
    return error


def _format_key(message: Generate | Count) -> bytes:
    if isinstance(message, Count) or not (message.format or message.conversation.forced):
        return b""
    forced = [tool for tool in message.conversation.tools if tool.name in message.conversation.forced]
    return hashlib.sha256(msgspec.msgpack.encode((message.format, forced))).digest()
