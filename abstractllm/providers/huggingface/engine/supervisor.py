"""The life of an engine's process: its place in memory, its start, its end, and its start again."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from abstractllm._core.model_memory import ModelMemory
from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError, EngineCrashedError, ModelLoadError, ServerShuttingDownError
from abstractllm.providers.huggingface.engine.admission_queue import AdmissionQueue
from abstractllm.providers.huggingface.engine.memory_estimate import expected_bytes
from abstractllm.providers.huggingface.engine.pending_request import as_error
from abstractllm.providers.huggingface.engine.state import Status, fulfil
from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.child_process import EngineProcess
from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Begun,
    Counted,
    Counters,
    Delta,
    Done,
    Failed,
    FromEngine,
    Load,
    Loaded,
    LoadFailed,
    Progress,
)

__all__ = ["EngineClosedError", "EngineSupervisor", "live_engines"]

logger = logging.getLogger("abstractllm.engine")

_LONGEST_PAUSE = 30.0
"""Seconds between two starts of an engine that keeps crashing."""

_engines: weakref.WeakSet[EngineSupervisor] = weakref.WeakSet()


class EngineClosedError(ServerShuttingDownError):
    """The engine takes no request any more."""


class EngineSupervisor:
    """Keeps the process of one engine running while it is wanted; what `Engine` adds is for those who use it.

    The process starts as soon as there is memory for it. When it ends unasked, the requests it was working on
    fail with `EngineCrashedError`, those that wait stay, and it is started again, at once the first time and then after
    growing pauses. A model that cannot be loaded fails all that wait; the next request tries again.

    Args:
        settings: What to load.
        name: The model's name in messages.
        memory: Where it gets its place in memory.
        on_change: Called, from any thread, when the state has changed.
    """

    max_queue: int = 0
    """Requests that may wait."""
    max_queue_bytes: int = 0
    """What these may hold."""
    keep_alive: float | None = None
    """Seconds without a request after which the process is ended."""

    def __init__(self, settings: Load, *, name: str, memory: ModelMemory, on_change: Callable[[], None]) -> None:
        self.settings = settings
        self.name = name
        self.memory = memory
        """Of its next start."""
        self._on_change = on_change
        self._next_id = 1
        self._known_bytes: int | None = None
        self._reset()
        _engines.add(self)

    def _reset(self) -> None:
        """Sets the state of an engine without a process."""
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ended.set()
        self._wake = threading.Event()
        self._process: EngineProcess | None = None
        self._status = Status(self._on_change)
        self._tickets = AdmissionQueue()
        self._counters = Counters()
        self._departures: list[concurrent.futures.Future[None]] = []
        self._idle_timer: threading.Timer | None = None
        self._place = self.memory
        self.is_stopping = False
        """Whether its process is being ended, or is not to be started after all."""
        self._draining = self._retired = self._closed = False
        self._holders = 0
        """How many wait for it to be loaded, or are about to use it: they keep a retired one open."""
        self._crashes = 0
        self._loads = 0
        """How often it became ready."""
        self._began = time.monotonic()
        self.last_used = self._began
        self.loaded_at: float | None = None
        self.load_seconds = 0.0
        self.loaded: Loaded | None = None
        """The loaded model; None while there is none."""
        self.beside: EngineSupervisor | None = None
        """One that must stay loaded while this one is loading, which then takes its place."""
        self.waits_for = ""
        """Why it waits for a place, if not just for the others."""

    @property
    def state(self) -> tuple[LlmState, str]:
        """Whether it can answer, and why not."""
        return self._status.state, self._status.reason

    # What the memory asks.

    @property
    def is_idle(self) -> bool:
        """Whether a model is loaded and has no request."""
        return self.loaded is not None and self._tickets.is_empty and not self.is_leaving

    @property
    def is_leaving(self) -> bool:
        """Whether the process ends as soon as it can."""
        return self.is_stopping or self._draining or self._retired

    def measure(self) -> int:
        """The bytes that the model takes, or is expected to take."""
        return self._known_bytes if self._known_bytes is not None else expected_bytes(self.settings)

    def request_eviction(self, drain: bool) -> None:
        """Ends the process if it is idle; if `drain`, also after the requests that it works on."""
        with self._lock:
            if drain or self.is_idle:
                self._draining = True
                self._rest()

    # The life of the process, in a thread of its own.

    def _start(self) -> None:
        """Starts the thread that keeps the process; the lock is held."""
        if self._ended.is_set():
            self._ended.clear()
            self._wake.clear()
            self._place = self.memory
            self._status.become(LlmState.LOADING, phase="starting")
            threading.Thread(target=self._live, name="engine", daemon=True).start()

    def _stop(self) -> None:
        """Begins to end the process; the lock is held."""
        if not (self._ended.is_set() or self.is_stopping):
            self.is_stopping = True
            self._stop_idle_timer()
            if self._process:
                self._process.channel.close()
            self._wake.set()
            self._place.notify()

    def _live(self) -> None:
        """Keeps a process running until it is not wanted or cannot be started."""
        while True:
            process, failure = None, None
            try:
                if self._place.acquire(self, self._waits):
                    process = EngineProcess()
                    failure = self._follow(process)
            except AbstractLLMError as error:
                failure = error
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

    def _waits(self) -> None:
        with self._lock:
            reason = self.waits_for or "waits until there is room for it beside the models that are loaded"
            self._status.become(LlmState.LOADING, reason, "waiting")

    def _follow(self, process: EngineProcess) -> AbstractLLMError | None:
        """Reads what the process says until its channel closes; returns why loading failed, if it did."""
        failure: AbstractLLMError | None = None
        with self._lock:
            self._process = process
            self._began = time.monotonic()
            if self.is_stopping:
                return None
            self._status.become(LlmState.LOADING, self._status.reason if self._crashes else "", "starting")
        process.channel.send(encode(self.settings))
        for message in process.channel:
            if isinstance(message, LoadFailed):
                failure = as_error(message)
            elif isinstance(message, Loaded):
                self._known_bytes = message.memory_bytes + message.cache_bytes
                failure = self._place.resize(self, self._known_bytes)
            if failure:
                break
            with self._lock:
                if not self.is_stopping:
                    self._receive(message, process)
        return failure

    def _receive(self, message: FromEngine, process: EngineProcess) -> None:
        match message:
            case Progress():
                self._status.become(*self.state, message.phase, message.fraction)
            case Loaded():
                self.loaded = message
                self._loads += 1
                self.loaded_at = self.last_used = time.monotonic()
                self.load_seconds = self.loaded_at - self._began
                self._status.become(LlmState.READY, message.note)
                self._pump()
                self._rest()
            case Batch(messages=messages, counters=counters):
                self._counters = counters
                self._hand_on(messages, process)
            case Begun() | Delta() | Done() | Counted() | Failed():
                self._hand_on((message,), process)

    def _hand_on(self, messages: Sequence[Begun | Delta | Done | Counted | Failed], process: EngineProcess) -> None:
        self._tickets.receive(messages, process.channel)
        if not all(isinstance(message, Begun | Delta) for message in messages):
            self._crashes = 0
            self._pump()
            self._rest()

    def _after(
        self, process: EngineProcess | None, status: int | None, failure: AbstractLLMError | None
    ) -> float | None:
        """Settles what a process left behind; the lock is held.

        Returns:
            Seconds until the next start; None if there shall be none.
        """
        was_loaded, self.loaded, self.loaded_at, self._process = self.loaded is not None, None, None, None
        self._counters = Counters()
        if self.is_stopping:
            return self._after_stop()
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
            # One that keeps crashing must not keep its place, too.
            self._place.release(self)
            self._status.become(LlmState.LOADING, f"the engine {how}", "starting")
            self._rest()
            return pause
        failure = failure or ModelLoadError(f"model {self.name}: the engine {how} while it was loading{words}")
        logger.error("model %s cannot be loaded: %s", self.name, failure.message)
        self._place.release(self)
        self._tickets.fail_all(failure)
        self._stop_idle_timer()
        self._draining = False
        self._closed = self._closed or (self._retired and not self._holders)
        self._status.become(LlmState.FAILED, failure.message, failure=failure)
        return None

    def _after_stop(self) -> float | None:
        """As `_after`, for a process that was asked to end."""
        self.is_stopping = self._draining = False
        self._crashes = 0
        self._place.release(self)
        if self._closed:
            self._tickets.fail_all(EngineClosedError(f"model {self.name} is closed"))
        self._status.become(LlmState.UNLOADED)
        departures, self._departures = self._departures, []
        fulfil(departures)
        if not self._tickets.has_waiting:
            return None
        self._wake.clear()
        self._status.become(LlmState.LOADING, phase="starting")
        return 0.0

    # Helpers; the lock is held in all of them.

    def _pump(self) -> None:
        """Gives the process what waits, as far as there is room."""
        if self.loaded and self._process and not (self.is_stopping or self._draining):
            self._tickets.pump(self.loaded, self._process.channel)

    def _rest(self) -> None:
        """Looks what is to be done when requests are over."""
        if self._retired and self._tickets.is_empty and not self._holders:
            self._closed = True
            self._stop()
        elif self._draining and not self._tickets.has_sent:
            self._stop()
        elif self.is_idle:
            self.last_used = time.monotonic()
            self._place.notify()
            self._watch_idleness()

    def _watch_idleness(self, seconds: float | None = None) -> None:
        """Starts to count the seconds until an idle model is unloaded, if nobody counts them yet."""
        if self.keep_alive is not None and self._idle_timer is None:
            self._idle_timer = threading.Timer(seconds or self.keep_alive, self._unload_if_idle)
            self._idle_timer.daemon = True
            self._idle_timer.start()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _unload_if_idle(self) -> None:
        with self._lock:
            if self._idle_timer is not threading.current_thread():
                return
            self._idle_timer = None
            if not self.is_idle or self.keep_alive is None:
                return
            rest = self.last_used + self.keep_alive - time.monotonic()
            if rest > 0:
                self._watch_idleness(rest)
            else:
                self._stop()

    def forget(self) -> None:
        """To be called in a forked child: the parent's process and requests are not the child's."""
        process = self._process
        self._reset()
        if process:
            process.forget()


def live_engines() -> list[EngineSupervisor]:
    """The engines of this process that have a model loaded, or are loading one."""
    return [engine for engine in tuple(_engines) if engine.state[0] in (LlmState.LOADING, LlmState.READY)]


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine.forget()


os.register_at_fork(after_in_child=_after_fork)
