"""The handle of one engine: the interface that an LLM uses."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

from msgspec.structs import replace

from abstractllm._core.admission.token_budgets import TokenBudgets
from abstractllm._core.forks import forget_in_forked_child
from abstractllm._core.model_memory import ModelMemory
from abstractllm.enums import LlmState
from abstractllm.errors import (
    GenerationCancelledError,
    InvalidRequestError,
    ModelInUseError,
    OverloadedError,
    RateLimitedError,
)
from abstractllm.providers.huggingface.engine.admission_queue import AdmissionQueue
from abstractllm.providers.huggingface.engine.history import History
from abstractllm.providers.huggingface.engine.pending_request import PendingRequest
from abstractllm.providers.huggingface.engine.settings import EngineLimits, EngineSettings
from abstractllm.providers.huggingface.engine.state import EngineState, Lifecycle, Tenure
from abstractllm.providers.huggingface.engine.supervisor import EngineClosedError, EngineSupervisor
from abstractllm.providers.huggingface.protocol.errors import copy_error
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Count,
    Counters,
    Format,
    Generate,
    Loaded,
    Sampling,
)
from abstractllm.types import LoadProgress

__all__ = ["Engine"]


class Engine:
    """Keeps one model loaded in a process and gives it requests, from any thread and any event loop.

    The process starts with the first request or `progress`; see `EngineSupervisor`.

    Args:
        settings: The model, and how it is loaded and bounded.
        memory: The memory that the process needs a share of.
        budgets: The tokens that callers may use.
        on_change: Called, from any thread, when the state has changed.
    """

    def __init__(
        self, settings: EngineSettings, *, memory: ModelMemory, budgets: TokenBudgets, on_change: Callable[[], None]
    ) -> None:
        self.name = settings.name
        """The model's name in messages."""
        self.load_settings = settings.load_settings
        self._limits = settings.limits
        self._budgets = budgets
        self._on_change = on_change
        self._request_ids = itertools.count(1)
        self._assemble(memory)
        forget_in_forked_child(self)

    def _assemble(self, memory: ModelMemory) -> None:
        """Makes the parts of an engine without a process."""
        self._state = EngineState(self._on_change)
        self._queue = AdmissionQueue(self._limits.admission, self._budgets)
        self._supervisor = EngineSupervisor(self.name, self.load_settings, self._state, self._queue, memory)
        self._supervisor.set_keep_alive(self._limits.keep_alive)
        self._supervisor.patience = self._limits.patience

    def forget(self) -> None:
        """Called in a forked child: the parent's process, requests and locks are not the child's."""
        process = self._supervisor.process
        self._assemble(self._supervisor.memory)
        if process:
            process.forget()

    # Facts.

    @property
    def resident(self) -> EngineSupervisor:
        """The engine as the memory for models sees it."""
        return self._supervisor

    @property
    def state(self) -> tuple[LlmState, str]:
        """The state of the model, and the reason where it cannot answer."""
        report = self._state.report
        reason = report.reason if self.is_responsive else "its process gives no sign of life"
        return report.state, reason

    @property
    def loaded(self) -> Loaded | None:
        """The loaded model as its process describes it; None while there is none."""
        model = self._state.model
        return model.description if model else None

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one."""
        process = self._supervisor.process
        return process.pid if process else None

    @property
    def queued(self) -> int:
        """Requests whose turn has not come."""
        with self._state.lock:
            return self._queue.queued

    @property
    def queued_bytes(self) -> int:
        """Bytes of the requests that have not been sent to the process."""
        with self._state.lock:
            return self._queue.waiting_bytes

    @property
    def requests(self) -> int:
        """Requests that run or wait."""
        with self._state.lock:
            return self._queue.running + self._queue.queued

    @property
    def counters(self) -> Counters:
        """The counters of the queue, and those of the process as of its last step."""
        with self._state.lock:
            model, queue = self._state.model, self._queue
            return replace(
                model.counters if model else Counters(),
                queued=queue.queued,
                running=queue.running,
                accepted=queue.accepted,
                released=queue.released,
            )

    @property
    def history(self) -> History:
        """The work of all its processes, the running one included."""
        with self._state.lock:
            history = History()
            history.add(self._state.history)
            if self._state.model:
                history.add_process(self._state.model.counters)
            return history

    @property
    def is_responsive(self) -> bool:
        """False while there is a process and it gives no sign of life."""
        return self._supervisor.is_responsive

    @property
    def silence(self) -> float:
        """Seconds since the process last gave a sign of life; 0 while there is none."""
        return self._supervisor.silence

    @property
    def is_closed(self) -> bool:
        """True once it takes no request any more."""
        return self._state.tenure is Tenure.CLOSED

    @property
    def is_down(self) -> bool:
        """True while there is no process, nor will there be one unasked."""
        return self._state.is_down

    # Requests.

    def submit(
        self,
        conversation: Conversation,
        sampling: Sampling | None,
        *,
        format: Format | None = None,
        whole: bool = False,
        caller: str = "",
        deadline: float | None = None,
    ) -> PendingRequest:
        """Takes a request, starting the process if need be; called in the request's event loop.

        Args:
            conversation: The messages and tools that the model is given.
            sampling: The parameters of the answer; None to count the conversation's tokens instead.
            format: The format that the answer must have.
            whole: True if the answer's text may come in one piece.
            caller: The caller's name; callers take turns.
            deadline: The time, on the clock of `time.monotonic`, at which the whole answer must be there.

        Raises:
            InvalidRequestError: If the request is too long to be sent to the engine.
            ContextLengthExceededError: If it certainly does not fit the context window.
            OverloadedError: If too many requests wait already, or it cannot meet its deadline.
            RateLimitedError: If its caller has too many waiting, or has used up their tokens.
            EngineClosedError: If the engine was closed.
        """
        request_id = next(self._request_ids)
        try:
            if sampling is None:
                pending = PendingRequest(Count(request_id, conversation), caller)
            else:
                message = Generate(request_id, conversation, sampling, whole, format, caller)
                pending = PendingRequest(message, caller, deadline)
        except ValueError as error:
            raise InvalidRequestError(f"prompt: {error}", field="prompt") from error
        with self._state.lock:
            self._require_open()
            try:
                self._queue.add(pending, self.loaded)
            except (OverloadedError, RateLimitedError):
                # Where nobody may wait, a model would else never be loaded, and everybody be refused for ever.
                self._supervisor.start()
                raise
            self._state.last_used = time.monotonic()
            self._supervisor.start()
            self._supervisor.dispatch()
        return pending

    def cancel(self, pending: PendingRequest) -> None:
        """Gives up a request; nothing happens if it is over."""
        with self._state.lock:
            process = self._supervisor.process
            self._queue.cancel(pending, process.channel if process else None)
            self._supervisor.reconcile()

    def configure(self, limits: EngineLimits) -> None:
        """Sets the limits, from now on."""
        with self._state.lock:
            self._limits = limits
            self._queue.configure(limits.admission)
            self._supervisor.set_keep_alive(limits.keep_alive)
            self._supervisor.patience = limits.patience
            self._supervisor.dispatch()  # some may wait for a limit that is gone

    # Loading and unloading.

    async def progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Starts loading if need be, and follows it; the last state is READY. Leaving it does not stop the load.

        Raises:
            AbstractLLMError: The reason, if the model cannot be loaded.
        """
        with self.pinned():
            async with aclosing(self._watch_loading()) as steps:
                async for step in steps:
                    yield step

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keeps the engine open meanwhile, even if it is retired."""
        with self._state.lock:
            self._state.pins += 1
        try:
            yield
        finally:
            with self._state.lock:
                self._state.pins -= 1
                self._supervisor.reconcile()

    async def _watch_loading(self) -> AsyncGenerator[LoadProgress, None]:
        loads = self._state.loads
        has_begun = False
        while True:
            with self._state.lock:
                self._require_open()
                if not has_begun and self._state.lifecycle is not Lifecycle.STOPPING:  # else once that has ended
                    has_begun = True
                    self._supervisor.start()
                report = self._state.report
                is_ready = report.state is LlmState.READY or self._state.loads > loads
                change = self._state.watch()
            try:
                if not has_begun:
                    yield LoadProgress(LlmState.LOADING, "unloading")
                elif is_ready:
                    yield LoadProgress(LlmState.READY)
                    return
                elif report.failure:
                    raise copy_error(report.failure)
                elif report.state is LlmState.UNLOADED:
                    raise GenerationCancelledError(f"model {self.name} was unloaded while it was loading")
                else:
                    yield LoadProgress(report.state, report.phase, report.fraction)
                await asyncio.wrap_future(change)
            finally:
                with self._state.lock:
                    self._state.unwatch(change)

    def unload(self, *, force: bool) -> concurrent.futures.Future[None]:
        """Begins to end the process; requests that come meanwhile start it again afterwards.

        Args:
            force: Cancel the requests that run or wait.

        Returns:
            A future that is done when the memory is free.

        Raises:
            ModelInUseError: If requests run or wait, unless forced.
        """
        with self._state.lock:
            if self.requests and not force:
                raise ModelInUseError(
                    f"model {self.name}: {self.requests} requests run or wait; end them, or force it",
                    requested=self.requests,
                )
            self._queue.fail_all(GenerationCancelledError(f"model {self.name} was unloaded"))
            self._supervisor.stop()
            if self._state.lifecycle is Lifecycle.FAILED:
                self._state.dismiss_failure()
            return self._state.watch_end()

    def retire(self) -> None:
        """Closes the engine as soon as it has answered its requests and is not pinned."""
        with self._state.lock:
            self._state.retire()
            self._supervisor.reconcile()

    def reinstate(self) -> bool:
        """Takes `retire` back; returns False if it is too late."""
        with self._state.lock:
            return self._state.reinstate()

    def close(self, wait: bool = True) -> None:
        """Ends the process for good; requests in it fail.

        Args:
            wait: Wait for its end, in the calling thread.
        """
        with self._state.lock:
            self._state.close()
            self._supervisor.stop()
            end = self._state.watch_end()
        if wait:
            end.result()

    def _require_open(self) -> None:
        if self.is_closed:
            raise EngineClosedError(f"model {self.name} is closed")
