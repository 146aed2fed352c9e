"""The handle of one engine: what the provider asks of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from msgspec.structs import replace

from abstractllm.enums import LlmState
from abstractllm.errors import GenerationCancelledError, InvalidRequestError, ModelInUseError
from abstractllm.providers.huggingface.engine.pending_request import PendingRequest, copy_of
from abstractllm.providers.huggingface.engine.state import fulfil
from abstractllm.providers.huggingface.engine.supervisor import EngineClosedError, EngineSupervisor
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Count,
    Counters,
    Format,
    Generate,
    Sampling,
)
from abstractllm.types import LoadProgress

__all__ = ["Engine"]


class Engine(EngineSupervisor):
    """Keeps one model loaded in a process and gives it requests, from any thread and any event loop.

    The process starts with the first request or `progress`; see `EngineSupervisor`.
    """

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        process = self._process
        return process.pid if process else None

    @property
    def queued(self) -> int:
        """Requests whose turn has not come."""
        with self._lock:
            return self._tickets.queued

    @property
    def requests(self) -> int:
        """Requests that run or wait."""
        with self._lock:
            return self._tickets.running + self._tickets.queued

    @property
    def counters(self) -> Counters:
        """What it has done and what it holds; as of the last step where that is the process's."""
        with self._lock:
            tickets = self._tickets
            return replace(
                self._counters,
                queued=tickets.queued,
                running=tickets.running,
                accepted=tickets.accepted,
                released=tickets.released,
            )

    @property
    def is_closed(self) -> bool:
        """Whether it takes no request any more."""
        return self._closed

    @property
    def has_ended(self) -> bool:
        """Whether there is no process, nor will there be one unasked."""
        return self._ended.is_set()

    def configure(self, *, max_queue: int, max_queue_bytes: int, keep_alive: float | None) -> None:
        """Sets the limits, from now on."""
        with self._lock:
            self.max_queue, self.max_queue_bytes, self.keep_alive = max_queue, max_queue_bytes, keep_alive
            self._stop_idle_timer()
            if self.is_idle:
                self._watch_idleness()

    def submit(
        self,
        conversation: Conversation,
        sampling: Sampling | None,
        *,
        format: Format | None = None,
        whole: bool = False,
        caller: str = "",
    ) -> PendingRequest:
        """Takes a request, starting the process if need be; to be called in the request's event loop.

        Args:
            conversation: What the model is given.
            sampling: How to answer; None to count the conversation's tokens instead.
            format: What the answer must be.
            whole: Whether the answer's text may come in one piece.
            caller: Who asks; callers take turns.

        Raises:
            InvalidRequestError: If the request is too long to be sent to the engine.
            ContextLengthExceededError: If it certainly does not fit the context window.
            OverloadedError: If too many requests wait already.
            EngineClosedError: If the engine was closed.
        """
        with self._lock:
            request_id, self._next_id = self._next_id, self._next_id + 1
        try:
            if sampling is None:
                ticket = PendingRequest(Count(request_id, conversation), caller)
            else:
                ticket = PendingRequest(Generate(request_id, conversation, sampling, whole, format), caller)
        except ValueError as error:
            raise InvalidRequestError(f"prompt: {error}", field="prompt") from error
        with self._lock:
            if self._closed:
                raise EngineClosedError(f"model {self.name} is closed")
            self._tickets.add(ticket, self.loaded, self.max_queue, self.max_queue_bytes)
            self.last_used = time.monotonic()
            self._start()
            self._pump()
        return ticket

    def cancel(self, ticket: PendingRequest) -> None:
        """Gives up a request; nothing happens if it is over."""
        with self._lock:
            self._tickets.cancel(ticket, self._process.channel if self._process else None)
            self._rest()

    async def progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Starts loading if need be, and follows it; the last state is READY. Leaving it does not stop the load.

        Raises:
            AbstractLLMError: The reason, if the model cannot be loaded.
        """
        with self.held():
            async with aclosing(self._follow_loading()) as steps:
                async for step in steps:
                    yield step

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps it open meanwhile, even if it is retired."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                self._rest()

    async def _follow_loading(self) -> AsyncGenerator[LoadProgress, None]:
        with self._lock:
            loads = self._loads
        has_begun = False
        while True:
            with self._lock:
                if self._closed:
                    raise EngineClosedError(f"model {self.name} is closed")
                if not has_begun and not self.is_stopping:  # else it is loaded again afterwards
                    has_begun = True
                    self._start()
                status, failure = self._status.progress, self._status.failure
                is_ready = status.state is LlmState.READY or self._loads > loads
                change = self._status.watch()
            try:
                if has_begun and is_ready:
                    yield LoadProgress(LlmState.READY)
                    return
                if has_begun and failure:
                    raise copy_of(failure)
                if has_begun and status.state is LlmState.UNLOADED:
                    raise GenerationCancelledError(f"model {self.name} was unloaded while it was loading")
                yield status if has_begun else LoadProgress(LlmState.LOADING, "unloading")
                await asyncio.wrap_future(change)
            finally:
                with self._lock:
                    self._status.unwatch(change)

    def unload(self, *, force: bool) -> concurrent.futures.Future[None]:
        """Begins to end the process; requests that come meanwhile start it again afterwards.

        Args:
            force: Cancel the requests that run or wait.

        Returns:
            What is done when the memory is free.

        Raises:
            ModelInUseError: If requests run or wait, unless forced.
        """
        with self._lock:
            if self.requests and not force:
                raise ModelInUseError(
                    f"model {self.name}: {self.requests} requests run or wait; end them, or force it",
                    requested=self.requests,
                )
            self._tickets.fail_all(GenerationCancelledError(f"model {self.name} was unloaded"))
            departure: concurrent.futures.Future[None] = concurrent.futures.Future()
            if self._ended.is_set():
                self._status.become(LlmState.UNLOADED)
                fulfil([departure])
            else:
                self._departures.append(departure)
                self._stop()
            return departure

    def retire(self) -> None:
        """Closes the engine as soon as it has answered its requests, and nobody holds it."""
        with self._lock:
            self._retired = True
            self._rest()

    def keep(self) -> bool:
        """Takes `retire` back; False if it is too late."""
        with self._lock:
            self._retired = False
            return not self._closed

    def close(self, wait: bool = True) -> None:
        """Ends the process for good; requests in it fail. Waits for its end in the calling thread, if asked to."""
        with self._lock:
            self._closed = True
            self._stop()
        if wait:
            self._ended.wait()
