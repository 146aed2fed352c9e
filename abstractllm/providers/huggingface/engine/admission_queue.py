"""The requests of one engine: those that wait, and those that its process has."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial

from abstractllm._core.admission.admission import Admission
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm._core.admission.token_budgets import TokenBudgets
from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.engine.pending_request import (
    Answer,
    PendingRequest,
    as_error,
    deliver,
)
from abstractllm.providers.huggingface.protocol.channel import Channel, encode
from abstractllm.providers.huggingface.protocol.errors import copy_error
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

_MIN_AHEAD = 4
"""Requests sent to a batching process beyond its slots, or an eighth of these if that is more: it prepares them while
others are answered."""
_MAX_COUNTS = 4
"""Prompts whose tokens are counted at a time; these do not wait for answers."""
_MAX_BYTES_AHEAD = 16 * 2**20
"""Bytes of the requests that were sent and have not begun; one request may always be sent."""

_MAX_NEW_FORMATS = 4
"""Requests with new formats that a caller may have in the process without being answered: heavy formats would else take
all of its places, and everybody else would wait for their compilation."""
_KNOWN_FORMATS = 32
"""Formats that the process keeps compiled."""


class AdmissionQueue:
    """Takes requests in, and sends them to a process a few at a time. The engine's lock is held in every method.

    Args:
        limits: The limits of what waits, and of callers.
        budgets: The tokens that callers may use, of all engines of the LLM together.
    """

    def __init__(self, limits: AdmissionLimits, budgets: TokenBudgets | None = None) -> None:
        self._admission: Admission[PendingRequest] = Admission(limits, budgets, counts_apart=True)
        self._sent: dict[int, PendingRequest] = {}
        self.accepted = self.released = 0
        """Requests that were taken in, and those of them that are over, however they ended."""
        self._forget_process()

    def _forget_process(self) -> None:
        self._order = 0
        """The number of answers that this process was asked for."""
        self._counting = 0
        """The requests for counts that it has."""
        self._ahead = self._bytes_ahead = 0
        """The requests that it has not begun, and their bytes."""
        self._new_formats: Counter[str] = Counter()
        """Those of them with new formats, by caller."""
        self._known_formats: OrderedDict[bytes, None] = OrderedDict()
        """The keys of the formats that it has answered with, latest last."""

    @property
    def queued(self) -> int:
        """Requests whose turn has not come."""
        return self._admission.waiting + self._ahead

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the requests that have not been sent to a process."""
        return self._admission.waiting_bytes

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self._sent) - self._ahead

    @property
    def is_empty(self) -> bool:
        """True while it has no request."""
        return not (self._sent or self.has_waiting)

    @property
    def has_waiting(self) -> bool:
        """True while a request has not been sent to a process."""
        return self._admission.waiting > 0

    @property
    def has_sent(self) -> bool:
        """True while the process has a request."""
        return bool(self._sent)

    def configure(self, limits: AdmissionLimits) -> None:
        """Sets the limits, from now on."""
        self._admission.limits = limits

    def add(self, request: PendingRequest, loaded: Loaded | None) -> None:
        """Takes a request in; see `Admission.add`.

        Args:
            request: The request.
            loaded: The model, if it is loaded.

        Raises:
            ContextLengthExceededError: If it certainly does not fit the loaded model's window.
            OverloadedError: If too much waits already, or it cannot meet its deadline.
            RateLimitedError: If its caller has too many waiting, or has used up their tokens.
        """
        if too_long := request.too_long_for(loaded):
            raise too_long
        request.has_new_format = self._is_new_format(request)
        goes_at_once = loaded is not None and self._goes_at_once(request, loaded)
        displaced = self._admission.add(request, goes_at_once=goes_at_once, is_serving=loaded is not None)
        self.accepted += 1
        for other, error in displaced:
            self.released += 1
            other.put(error)

    def _goes_at_once(self, request: PendingRequest, loaded: Loaded) -> bool:
        is_held = partial(self._is_held, loaded)
        first = self._admission.first(counts=request.is_count, is_held=is_held)
        is_next = first is None and not is_held(request) and not self._admission.is_held(request)
        return is_next and self._has_room(request, loaded)

    def dispatch(self, loaded: Loaded, channel: Channel[FromEngine]) -> float:
        """Sends what waits, as far as there is room.

        Returns:
            Seconds after which there may be room for more, though nothing else happens; 0 if there will not.
        """
        self._admission.places = loaded.slots
        is_held = partial(self._is_held, loaded)
        for counts in (True, False):
            while (request := self._admission.first(counts=counts, is_held=is_held)) and (
                request.is_orphaned or self._has_room(request, loaded)
            ):
                if request.is_orphaned:
                    self._admission.discard(request)
                    self.released += 1
                elif error := request.too_long_for(loaded) or self._admission.too_late(request):
                    self._admission.discard(request)
                    self.released += 1
                    request.put(error)
                else:
                    self._admission.take(request)
                    self._send(request, channel)
        waits = request is not None and self._admission.running < loaded.slots
        return self._admission.patience(request) if waits and request is not None else 0.0

    def _has_room(self, request: PendingRequest, loaded: Loaded) -> bool:
        """Returns True if the process can be sent one more: it gets as many as it has slots, and a few to prepare.

        Of a caller who has got more than others it gets none to prepare: it would be answered before theirs.
        """
        if request.is_count:
            return self._counting < _MAX_COUNTS
        if self._ahead and self._bytes_ahead + request.size > _MAX_BYTES_AHEAD:
            return False
        if self._admission.running < loaded.slots:
            return not self._admission.patience(request)
        return self._admission.running < _places(loaded) and not self._admission.is_ahead(request)

    def _is_new_format(self, request: PendingRequest) -> bool:
        return bool(request.format_key) and request.format_key not in self._known_formats

    def _is_held(self, loaded: Loaded, request: PendingRequest) -> bool:
        """Returns True if the caller's other new formats must be compiled first."""
        if not self._is_new_format(request):
            return False
        limit = max(1, min(_MAX_NEW_FORMATS, _places(loaded) // 2))
        return self._new_formats[request.caller] >= limit and not request.is_orphaned

    def _send(self, request: PendingRequest, channel: Channel[FromEngine]) -> None:
        self._sent[request.id] = request
        request.has_new_format = self._is_new_format(request)
        if request.has_new_format:
            self._new_formats[request.caller] += 1
        self._ahead += 1
        self._bytes_ahead += request.size
        if request.is_count:
            self._counting += 1
        else:
            self._order += 1
            request.order = self._order
        channel.send(request.take_frame())

    def cancel(self, request: PendingRequest, channel: Channel[FromEngine] | None) -> None:
        """Gives up a request; nothing happens if it is over."""
        if self._admission.discard(request):
            self.released += 1
        elif request.id in self._sent and channel and not request.is_count and not request.is_cancelled:
            request.is_cancelled = True
            channel.send(encode(Cancel(request.id, request.order)), urgent=True)

    def receive(self, messages: Sequence[_OfRequest], channel: Channel[FromEngine]) -> None:
        """Delivers what the process says of its requests; what belongs to one that was given up is dropped."""
        answers: list[tuple[PendingRequest, Answer]] = []
        for message in messages:
            request = self._sent[message.id]
            self._account(request, message, channel)
            if not request.is_cancelled:
                answers.append((request, as_error(message) if isinstance(message, Failed) else message))
        deliver(answers)

    def _account(self, request: PendingRequest, message: _OfRequest, channel: Channel[FromEngine]) -> None:
        if isinstance(message, Delta):
            request.output_tokens = message.output_tokens
            if message.output_tokens is not None:
                self._admission.progress(request, message.output_tokens)
            if request.is_orphaned:
                self.cancel(request, channel)
            return
        if not request.has_begun:
            request.has_begun = True
            self._ahead -= 1
            self._bytes_ahead -= request.size
            self._end_wait_for_format(request, isinstance(message, Begun))
        if isinstance(message, Begun):
            return
        del self._sent[message.id]
        self.released += 1
        self._counting -= request.is_count
        is_whole = isinstance(message, Done) and message.finish_reason != "cancelled"
        self._admission.end(
            request,
            prompt_tokens=message.input_tokens if isinstance(message, Done) and is_whole else None,
            answer_tokens=message.output_tokens if isinstance(message, Done | Failed) else None,
            is_whole=is_whole,
        )

    def _end_wait_for_format(self, request: PendingRequest, is_compiled: bool) -> None:
        if request.has_new_format:
            self._new_formats -= Counter((request.caller,))  # one without any is forgotten
        if request.format_key and is_compiled:
            self._known_formats[request.format_key] = None
            self._known_formats.move_to_end(request.format_key)
            if len(self._known_formats) > _KNOWN_FORMATS:
                self._known_formats.popitem(last=False)

    def fail_sent(self, error: AbstractLLMError) -> None:
        """Fails what the process had; it has ended."""
        sent, self._sent = self._sent, {}
        self._forget_process()
        self._admission.end_all(sent.values())
        self._fail(sent.values(), error)

    def fail_all(self, error: AbstractLLMError) -> None:
        """Fails everything; the process has ended."""
        self.fail_sent(error)
        self._fail(self._admission.clear(), error)

    def _fail(self, requests: Iterable[PendingRequest], error: AbstractLLMError) -> None:
        for request in requests:
            self.released += 1
            failure = copy_error(error)
            failure.output_tokens = request.output_tokens
            request.put(failure)


def _places(loaded: Loaded) -> int:
    """Returns the number of requests that a process is sent: as many as it has slots, and a few to prepare."""
    return loaded.slots + (1 if loaded.slots == 1 else max(_MIN_AHEAD, loaded.slots // 8))
