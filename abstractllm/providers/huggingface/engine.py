"""The handle of one engine: its queue, its process, and what happens when that ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from abstractllm.enums import LlmState
from abstractllm.errors import (
    AbstractLLMError,
    EngineCrashedError,
    InvalidRequestError,
    ModelLoadError,
    ServerShuttingDownError,
)
from abstractllm.providers.huggingface.admission import TicketQueue
from abstractllm.providers.huggingface.process import EngineProcess
from abstractllm.providers.huggingface.tickets import Ticket, as_error, copy_of
from abstractllm.providers.huggingface.worker.channel import encode
from abstractllm.providers.huggingface.worker.protocol import (
    Batch,
    Begun,
    Conversation,
    Count,
    Counted,
    Delta,
    Done,
    Failed,
    FromEngine,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    Progress,
    Sampling,
)

__all__ = ["Engine", "LoadProgress", "live_engines"]

logger = logging.getLogger("abstractllm.engine")

_LONGEST_PAUSE = 30.0
"""Seconds between two starts of an engine that keeps crashing."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Where loading is."""

    state: LlmState
    phase: str = ""
    """`starting`, `tokenizer`, `weights`, `preparing`; empty when not loading."""
    fraction: float | None = None
    """Of this phase, from 0 to 1."""


class Engine:
    """Keeps one model loaded in a process and gives it requests, from any thread and any event loop.

    The process starts with the first request or `load`. When it ends unasked, the requests it was working on fail with
    `EngineCrashedError`, those that wait stay, and it is started again, at once the first time and then after growing
    pauses. A model that cannot be loaded fails all that wait; the next request tries again.

    Args:
        settings: What to load.
        name: The model's name in messages.
        max_queue: Requests that may wait.
        max_queue_bytes: What these may hold.
        keep_alive: Seconds without a request after which the process is ended.
        on_change: Called, from any thread, when `state` has changed.
    """

    def __init__(
        self,
        settings: Load,
        *,
        name: str,
        max_queue: int,
        max_queue_bytes: int,
        keep_alive: float | None,
        on_change: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.name = name
        self.max_queue = max_queue
        self.max_queue_bytes = max_queue_bytes
        self.keep_alive = keep_alive
        self.loaded: Loaded | None = None
        """The loaded model; None while there is none."""
        self._on_change = on_change
        self._next_id = 1
        self._reset()
        _engines.add(self)

    def _reset(self) -> None:
        """Sets the state of an engine without a process."""
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ended.set()
        self._wake = threading.Event()
        self._process: EngineProcess | None = None
        self._state, self._reason = LlmState.UNLOADED, ""
        self._progress = LoadProgress(LlmState.UNLOADED)
        self._failure: AbstractLLMError | None = None
        self._tickets = TicketQueue()
        self._watchers: list[concurrent.futures.Future[None]] = []
        self._idle_timer: threading.Timer | None = None
        self._stopping = self._closed = False
        self._crashes = 0
        self.loaded = None

    # What the provider asks.

    @property
    def state(self) -> tuple[LlmState, str]:
        """Whether it can answer, and why not."""
        return self._state, self._reason

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
    def is_idle(self) -> bool:
        """Whether no request is in it."""
        with self._lock:
            return self._tickets.is_empty

    def submit(
        self, conversation: Conversation, sampling: Sampling | None, *, whole: bool = False, caller: str = ""
    ) -> Ticket:
        """Takes a request, starting the process if need be; to be called in the request's event loop.

        Args:
            conversation: What the model is given.
            sampling: How to answer; None to count the conversation's tokens instead.
            whole: Whether the answer's text may come in one piece.
            caller: Who asks; callers take turns.

        Raises:
            InvalidRequestError: If the request is too long to be sent to the engine.
            ContextLengthExceededError: If it certainly does not fit the context window.
            OverloadedError: If too many requests wait already.
            ServerShuttingDownError: If the engine was closed.
        """
        with self._lock:
            request_id, self._next_id = self._next_id, self._next_id + 1
        try:
            if sampling is None:
                ticket = Ticket(Count(request_id, conversation), caller)
            else:
                ticket = Ticket(Generate(request_id, conversation, sampling, whole), caller)
        except ValueError as error:
            raise InvalidRequestError(f"prompt: {error}", field="prompt") from error
        with self._lock:
            if self._closed:
                raise ServerShuttingDownError(f"LLM {self.name} is closed")
            self._tickets.add(ticket, self.loaded, self.max_queue, self.max_queue_bytes)
            self._start()
            self._pump()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Gives up a request; nothing happens if it is over."""
        with self._lock:
            self._tickets.cancel(ticket, self._process.channel if self._process else None)
            self._watch_idleness()

    async def progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Starts loading if need be, and follows it; the last state is READY.

        Raises:
            AbstractLLMError: The reason, if the model cannot be loaded.
        """
        with self._lock:
            if self._closed:
                raise ServerShuttingDownError(f"LLM {self.name} is closed")
            self._start()
        while True:
            with self._lock:
                progress, failure = self._progress, self._failure
                change: concurrent.futures.Future[None] = concurrent.futures.Future()
                self._watchers.append(change)
            if failure:
                raise copy_of(failure)
            if progress.state is LlmState.UNLOADED:
                raise ServerShuttingDownError(f"model {self.name} was unloaded")
            yield progress
            if progress.state is LlmState.READY:
                return
            await asyncio.wrap_future(change)

    def unload(self, wait: bool = True) -> None:
        """Ends the process; requests in it fail, and the next one starts it again."""
        with self._lock:
            self._stopping = True
            if self._process:
                self._process.channel.close()
            self._wake.set()
        if wait:
            self._ended.wait()

    def close(self, wait: bool = True) -> None:
        """Ends the process for good; requests in it fail. Waits for its end in the calling thread, if asked to."""
        with self._lock:
            self._closed = True
            self._stop_idle_timer()
        self.unload(wait)

    # The life of the process, in a thread of its own.

    def _start(self) -> None:
        """Starts the thread that keeps the process; the lock is held."""
        self._stop_idle_timer()
        if self._ended.is_set():
            self._ended.clear()
            self._wake.clear()
            self._stopping = False
            self._failure = None
            self._set(LlmState.LOADING, "", LoadProgress(LlmState.LOADING, "starting"))
            threading.Thread(target=self._live, name="engine", daemon=True).start()

    def _live(self) -> None:
        """Keeps a process running until it is not wanted or cannot be started."""
        while True:
            process, failure = None, None
            try:
                process = EngineProcess()
                failure = self._follow(process)
            except Exception as error:  # not to be left out of any state: nobody else would tell the requests
                logger.exception("engine of model %s failed", self.name)
                failure = ModelLoadError(f"engine of model {self.name}: {type(error).__name__}: {error}")
            status = process.end() if process else None
            with self._lock:
                pause = self._after(process, status, failure)
                if pause is None:
                    self._ended.set()
                    return
            self._wake.wait(pause)

    def _follow(self, process: EngineProcess) -> AbstractLLMError | None:
        """Reads what the process says until its channel closes; returns why loading failed, if it did."""
        failure = None
        with self._lock:
            self._process = process
            if self._stopping:
                return None
        process.channel.send(encode(self.settings))
        for message in process.channel:
            if isinstance(message, LoadFailed):
                failure = as_error(message)
                break
            with self._lock:
                self._receive(message, process)
        return failure

    def _receive(self, message: FromEngine, process: EngineProcess) -> None:
        match message:
            case Progress():
                self._set(self._state, self._reason, LoadProgress(self._state, message.phase, message.fraction))
            case Loaded():
                self.loaded = message
                self._set(LlmState.READY, message.note, LoadProgress(LlmState.READY))
                self._pump()
            case Batch(messages=messages):
                self._hand_on(messages, process)
            case Begun() | Delta() | Done() | Counted() | Failed():
                self._hand_on((message,), process)

    def _hand_on(self, messages: Sequence[Begun | Delta | Done | Counted | Failed], process: EngineProcess) -> None:
        self._tickets.receive(messages, process.channel)
        if not all(isinstance(message, Begun | Delta) for message in messages):
            self._crashes = 0
            self._pump()
            self._watch_idleness()

    def _after(
        self, process: EngineProcess | None, status: int | None, failure: AbstractLLMError | None
    ) -> float | None:
        """Settles what a process left behind; the lock is held.

        Returns:
            Seconds until the next start; None if there shall be none.
        """
        was_loaded, self.loaded, self._process = self.loaded is not None, None, None
        if self._stopping:
            unloaded = ServerShuttingDownError(f"model {self.name} was unloaded")
            (self._tickets.fail_all if self._closed else self._tickets.fail_sent)(unloaded)
            self._set(LlmState.UNLOADED, "", LoadProgress(LlmState.UNLOADED))
            if not self._tickets.has_waiting:
                return None
            self._stopping = False
            self._wake.clear()
            self._set(LlmState.LOADING, "", LoadProgress(LlmState.LOADING, "starting"))
            return 0.0
        how = f"ended with status {status}" if status is None or status >= 0 else f"ended by signal {-status}"
        words = f": {process.last_words()}" if process and process.last_words() else ""
        if process:
            logger.error("the last output of engine %d:\n%s", process.pid, process.output())
        if was_loaded:
            pause = 0.0 if self._crashes == 0 else min(_LONGEST_PAUSE, 2.0 ** (self._crashes - 1))
            self._crashes += 1
            logger.error("engine of model %s %s, starting it again in %.0f s", self.name, how, pause)
            self._tickets.fail_sent(
                EngineCrashedError(f"the engine of model {self.name} {how}", retry_after=max(1.0, pause))
            )
            self._set(LlmState.LOADING, f"the engine {how}", LoadProgress(LlmState.LOADING, "starting"))
            return pause
        failure = failure or ModelLoadError(f"model {self.name}: the engine {how} while it was loading{words}")
        logger.error("model %s cannot be loaded: %s", self.name, failure.message)
        self._failure = failure
        self._tickets.fail_all(failure)
        self._set(LlmState.FAILED, failure.message, LoadProgress(LlmState.FAILED))
        return None

    # Helpers; the lock is held in all of them.

    def _pump(self) -> None:
        """Gives the process what waits, as far as there is room."""
        if self.loaded and self._process:
            self._tickets.pump(self.loaded, self._process.channel)

    def _set(self, state: LlmState, reason: str, progress: LoadProgress) -> None:
        changed = (state, reason) != (self._state, self._reason)
        self._state, self._reason, self._progress = state, reason, progress
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if watcher.set_running_or_notify_cancel():
                watcher.set_result(None)
        if changed:
            try:
                self._on_change()
            except Exception:  # a listener's fault is not the engine's
                logger.exception("a listener to the state of model %s failed", self.name)
        if state is LlmState.READY:
            self._watch_idleness()

    def _watch_idleness(self) -> None:
        """Starts to count the seconds until an idle model is unloaded."""
        self._stop_idle_timer()
        if self.keep_alive is not None and self.loaded and self._tickets.is_empty:
            self._idle_timer = threading.Timer(self.keep_alive, self._unload_if_idle)
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _unload_if_idle(self) -> None:
        with self._lock:
            if self._tickets.is_empty and self._idle_timer is threading.current_thread() and self._process:
                self._stopping = True
                self._process.channel.close()

    def forget(self) -> None:
        """To be called in a forked child: the parent's process and requests are not the child's."""
        process = self._process
        self._reset()
        if process:
            process.forget()


def live_engines() -> list[Engine]:
    """The engines of this process that have a model loaded, or are loading one."""
    return [engine for engine in tuple(_engines) if engine.state[0] in (LlmState.LOADING, LlmState.READY)]


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine.forget()


os.register_at_fork(after_in_child=_after_fork)
