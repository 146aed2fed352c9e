"""The gate before an LLM that other machines answer for: requests of any thread and event loop wait there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from abstractllm._core.admission.admission import Admission, Refusal
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm._core.admission.ticket import Ticket, measure
from abstractllm._core.admission.turn_timer import TurnTimer
from abstractllm.requests import GenerationRequest

__all__ = ["AdmissionGate", "Passage"]


class Passage(Ticket):
    """One request's way through the gate. It belongs to the event loop that it was made in; see `Ticket`."""

    waited = 0.0
    """Seconds that it waited for its turn, or in vain."""
    used_prompt_tokens: int | None = None
    """Tokens of its prompt, once they are known."""
    used_answer_tokens: int | None = None
    """Tokens of its answer, once they are known."""
    is_whole = False
    """True once its answer is whole."""

    def __init__(
        self,
        caller: str = "",
        size: int = 0,
        *,
        characters: int | None = None,
        max_tokens: int | None = None,
        deadline: float | None = None,
        is_count: bool = False,
    ) -> None:
        super().__init__(
            caller, size, characters=characters, max_tokens=max_tokens, deadline=deadline, is_count=is_count
        )
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    def of(cls, request: GenerationRequest, *, is_count: bool = False) -> Passage:
        """Returns the way of a request.

        Args:
            request: The request.
            is_count: True if only the number of its tokens is wanted.
        """
        size, characters = measure(request)
        return cls(
            request.caller,
            size,
            characters=characters,
            max_tokens=request.parameters.max_tokens,
            deadline=request.deadline,
            is_count=is_count,
        )

    async def wait(self) -> None:
        """Waits for the turn.

        Raises:
            Refusal: If it has to make place for another request, or cannot meet its deadline any more.
        """
        await self._turn

    def admit(self) -> bool:
        """Tells the one who waits that it is their turn, from any thread; returns False if nobody waits any more."""
        return self._wake(None)

    def refuse(self, error: Refusal) -> None:
        """Tells the one who waits that they will have no turn, from any thread."""
        self._wake(error)

    def _wake(self, error: Refusal | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:  # its event loop is closed, and the one who waited with it
            return False
        return True

    def _settle(self, error: Refusal | None) -> None:
        if self._turn.done():
            return
        if error is None:
            self._turn.set_result(None)
        else:
            self._turn.set_exception(error)
            self._turn.exception()  # one who is cancelled meanwhile does not look at it


class AdmissionGate:
    """Lets as many requests of one LLM run as have places; see `Admission` for who waits, and who is refused.

    An `asyncio.Semaphore` belongs to one event loop; an LLM may be used from several.

    Args:
        places: Requests that run at a time.
        limits: The limits of those that wait, and of callers.
    """

    def __init__(self, places: int, limits: AdmissionLimits) -> None:
        self._lock = threading.Lock()
        self._admission: Admission[Passage] = Admission(limits)
        self._admission.places = places
        self._timer = TurnTimer(self._give_turns)

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._admission.waiting

    @property
    def waiting_bytes(self) -> int:
        """Bytes that these hold."""
        return self._admission.waiting_bytes

    @property
    def running(self) -> int:
        """Requests that run."""
        return self._admission.running

    def configure(self, places: int, limits: AdmissionLimits) -> None:
        """Changes the limits, from now on; what runs already goes on."""
        with self._lock:
            self._admission.places, self._admission.limits = places, limits
            self._admit()

    @asynccontextmanager
    async def admit(self, passage: Passage) -> AsyncIterator[Passage]:
        """Waits until a request may run, and counts it as running until the context is left.

        Raises:
            OverloadedError: If too much waits already, or it cannot meet its deadline.
            RateLimitedError: If its caller has too many waiting, or has used up their tokens.
        """
        await self._wait(passage)
        try:
            yield passage
        finally:
            self._end(passage)

    def charge(self, passage: Passage) -> None:
        """Charges a running request's caller for an answer that has become longer than expected."""
        with self._lock:
            self._admission.progress(passage, passage.used_answer_tokens or 0)

    async def _wait(self, passage: Passage) -> None:
        began = time.monotonic()
        admission = self._admission
        with self._lock:
            has_place = admission.running < admission.places and not admission.is_held(passage)
            if has_place and admission.first() is None and not admission.patience(passage):
                admission.add(passage, goes_at_once=True)
                admission.take(passage)
                return
            displaced = admission.add(passage, goes_at_once=False)
            self._admit()
        for other, error in displaced:
            other.refuse(error)
        try:
            await passage.wait()
        except BaseException:
            with self._lock:
                is_admitted = not admission.discard(passage) and passage.taken_at is not None
            if is_admitted:
                self._end(passage)
            raise
        finally:
            passage.waited = time.monotonic() - began

    def _end(self, passage: Passage) -> None:
        with self._lock:
            self._admission.end(
                passage,
                prompt_tokens=passage.used_prompt_tokens,
                answer_tokens=passage.used_answer_tokens,
                is_whole=passage.is_whole,
            )
            self._admit()

    def _admit(self) -> None:
        """Lets those run whose turn it is."""
        admission = self._admission
        while admission.running < admission.places and (passage := admission.first()):
            if patience := admission.patience(passage):
                self._timer.set(patience)
                return
            if late := admission.too_late(passage):
                admission.discard(passage)
                passage.refuse(late)
                continue
            admission.take(passage)
            if not passage.admit():
                admission.end(passage)

    def _give_turns(self) -> None:
        with self._lock:
            self._admit()
