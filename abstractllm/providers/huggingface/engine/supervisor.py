"""The supervisor of an engine's process: its memory, its start, its end, and its start again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from abstractllm._core.admission.turn_timer import TurnTimer
from abstractllm._core.model_memory import ModelMemory
from abstractllm.errors import AbstractLLMError, EngineCrashedError, ModelLoadError, ServerShuttingDownError
from abstractllm.providers.huggingface.engine.admission_queue import AdmissionQueue
from abstractllm.providers.huggingface.engine.idle_timer import IdleTimer
from abstractllm.providers.huggingface.engine.pending_request import as_error
from abstractllm.providers.huggingface.engine.resident import EngineResident
from abstractllm.providers.huggingface.engine.state import EngineState, Lifecycle, Tenure
from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.child_process import EngineProcess, describe_exit
from abstractllm.providers.huggingface.protocol.messages import (
    Batch,
    Begun,
    Counted,
    Delta,
    Done,
    Failed,
    FromEngine,
    Load,
    Loaded,
    LoadFailed,
    Pong,
    Progress,
)
from abstractllm.providers.huggingface.protocol.watchdog import Patience, Watchdog

__all__ = ["EngineClosedError", "EngineSupervisor"]

logger = logging.getLogger("abstractllm.engine")

_LONGEST_PAUSE = 30.0
"""Seconds between two starts of an engine that keeps crashing."""
_MOST_FAILED_RESTARTS = 5
"""Crashes without an answer between them, after which a process that dies while it loads means a model that cannot."""


class EngineClosedError(ServerShuttingDownError):
    """The engine takes no request any more."""


@dataclass(frozen=True, slots=True)
class _ProcessEnd:
    """The end of a process, or of the attempt to start one."""

    process: EngineProcess | None
    status: int
    """The exit status; negative for a signal, 0 if there was no process."""
    failure: AbstractLLMError | None
    """The reason why loading failed, where that is known."""


class EngineSupervisor(EngineResident):
    """Keeps the process of one engine running while it is wanted, and gives it the requests that wait.

    The process starts as soon as there is memory for it. When it ends unasked, the requests it was working on fail with
    `EngineCrashedError`, those that wait stay, and it is started again, at once the first time and then after growing
    pauses. A model that cannot be loaded fails all that wait; the next request tries again.

    A process that gives no sign of life is given no further request, after a while it is ended, and what follows is the
    same as after a crash.

    For the memory that models share it is the engine's `Resident`.

    Args:
        name: The model's name in messages.
        load_settings: The model that the process loads, and how.
        state: The engine's state; its transitions are made here.
        queue: The engine's requests.
        memory: The memory that the process needs a share of.
    """

    def __init__(
        self, name: str, load_settings: Load, state: EngineState, queue: AdmissionQueue, memory: ModelMemory
    ) -> None:
        super().__init__(name, load_settings, state, queue)
        self.memory = memory
        """The memory that the next start takes its share of."""
        self.wait_reason = ""
        """The reason why it waits for memory, if not just for other models."""
        self.patience = Patience()
        """The bounds on what the process may be waited for."""
        self._idle_timer = IdleTimer(state.lock, lambda: state.last_used if self.is_idle else None, self.stop)
        self._turn_timer = TurnTimer(self._dispatch_later)
        self._process: EngineProcess | None = None
        self._process_memory = memory
        """The memory that the process has its share of."""
        self._watchdog: Watchdog | None = None
        """The watchdog of the process."""
        self._is_unresponsive = False
        """True while the process is silent, or is being ended because of that."""
        self._timeout = ""
        """The bound beyond which the process was ended, in words that follow the name of the engine."""
        self._stop_requested = threading.Event()

    @property
    def process(self) -> EngineProcess | None:
        """The process, while there is one."""
        return self._process

    @property
    def is_responsive(self) -> bool:
        """False while there is a process and it gives no sign of life."""
        return not self._is_unresponsive

    @property
    def silence(self) -> float:
        """Seconds since the process last gave a sign of life; 0 while there is none."""
        watchdog = self._watchdog
        return watchdog.silence if watchdog else 0.0

    # For the engine, which holds the lock in all of these.

    def start(self) -> None:
        """Begins to start the process, if there is none."""
        if not self._state.is_down:
            return
        self._prepare_start()
        try:
            threading.Thread(target=self._run, name="engine", daemon=True).start()
        except RuntimeError as error:  # the system gives this process no thread; the next request tries again
            failure = ModelLoadError(f"model {self.name}: its engine cannot be started: {error}")
            self._after_failed_load(_ProcessEnd(None, 0, failure), "")

    def stop(self) -> None:
        """Begins to end the process, if there is one."""
        if not (self._state.is_down or self.is_stopping):
            self._state.stop()
            self._idle_timer.disarm()
            if self._process:
                self._process.channel.close()
            self._stop_requested.set()
            self._process_memory.notify()

    def dispatch(self) -> None:
        """Gives the process what waits, as far as there is room."""
        state = self._state
        if state.lifecycle is Lifecycle.READY and state.model and self._process and self.is_responsive:
            patience = self._queue.dispatch(state.model.description, self._process.channel)
            if patience:
                self._turn_timer.set(patience)

    def _dispatch_later(self) -> None:
        with self._state.lock:
            self.dispatch()

    def reconcile(self) -> None:
        """Brings the process in line with the engine's tenure and requests, of which some may be over."""
        if self._state.tenure is Tenure.RETIRED and self._queue.is_empty and not self._state.pins:
            self._state.close()
            self.stop()
        elif self._state.lifecycle is Lifecycle.DRAINING and not self._queue.has_sent:
            self.stop()
        elif self.is_idle:
            self._state.last_used = time.monotonic()
            self._process_memory.notify()
            self._idle_timer.arm()

    def set_keep_alive(self, seconds: float | None) -> None:
        """Sets the time without a request after which the process is ended; None for never."""
        self._idle_timer.disarm()
        self._idle_timer.keep_alive = seconds
        if self.is_idle:
            self._idle_timer.arm()

    # The life of the process, in a thread of its own.

    def _run(self) -> None:
        """Keeps a process running until none is wanted, or the model cannot be loaded."""
        pause: float | None = 0.0
        while pause is not None:
            self._stop_requested.wait(pause)
            end = self._run_process()
            with self._state.lock:
                pause = self._after_process(end)

    def _run_process(self) -> _ProcessEnd:
        """Starts a process once there is memory for it, and waits for its end."""
        process, failure = None, None
        try:
            if self._process_memory.acquire(self, self._report_wait):
                process = EngineProcess()
                failure = self._serve(process)
        except AbstractLLMError as error:
            failure = error
        except Exception as error:  # raised further it would leave the requests waiting
            logger.exception("engine of model %s failed", self.name)
            failure = ModelLoadError(f"engine of model {self.name}: {type(error).__name__}: {error}")
        return _ProcessEnd(process, process.end() if process else 0, failure)

    def _report_wait(self) -> None:
        with self._state.lock:
            if self._state.lifecycle is Lifecycle.LOADING:
                reason = self.wait_reason or "waits until there is room for it beside the models that are loaded"
                self._state.wait_for_memory(reason)

    def _serve(self, process: EngineProcess) -> AbstractLLMError | None:
        """Has the process load the model and answer until its channel closes; returns why loading failed, if it did."""
        began = time.monotonic()
        with self._state.lock:
            self._process = process
            if self.is_stopping:
                return None
            self._state.launch()
        process.channel.send(encode(self._load_settings))
        watchdog = self._watchdog = Watchdog(
            process.channel,
            patience=lambda: self.patience,
            is_loaded=lambda: self._state.model is not None,
            on_silence=self._note_silence,
            on_timeout=lambda reason: self._end_frozen(process, reason),
        )
        watchdog.start()
        try:
            return self._read(process, watchdog, began)
        finally:
            watchdog.stop()

    def _read(self, process: EngineProcess, watchdog: Watchdog, began: float) -> AbstractLLMError | None:
        """Reads what the process says until its channel closes; returns why loading failed, if it did."""
        for message in process.channel:
            watchdog.heard(message)
            if isinstance(message, Pong):
                continue
            failure: AbstractLLMError | None = None
            if isinstance(message, LoadFailed):
                failure = as_error(message)
            elif isinstance(message, Loaded):
                self._known_bytes = message.memory_bytes + message.cache_bytes
                failure = self._process_memory.resize(self, self._known_bytes)
            if failure:
                return failure
            with self._state.lock:
                # Of a process that was given up nobody waits for anything any more.
                if not (self.is_stopping or self._timeout):
                    self._receive(message, process, began)
        return None

    def _receive(self, message: FromEngine, process: EngineProcess, began: float) -> None:
        match message:
            case Progress():
                self._state.progress(message.phase, message.fraction)
            case Loaded():
                seconds = time.monotonic() - began
                place = f"{message.device}: {message.note}" if message.note else message.device
                logger.info("model %s was loaded in %.1f s on %s", self.name, seconds, place)
                self._state.ready(message, load_seconds=seconds)
                self.dispatch()
                self.reconcile()
            case Batch(messages=messages, counters=counters):
                if self._state.model:
                    self._state.model.counters = counters
                self._deliver(messages, process)
            case Begun() | Delta() | Done() | Counted() | Failed():
                self._deliver((message,), process)

    def _deliver(self, messages: Sequence[Begun | Delta | Done | Counted | Failed], process: EngineProcess) -> None:
        self._queue.receive(messages, process.channel)
        if not all(isinstance(message, Begun | Delta) for message in messages):
            self._state.crashes = 0
            self.dispatch()
            self.reconcile()

    # The watchdog's calls, in its thread.

    def _note_silence(self, is_silent: bool) -> None:
        with self._state.lock:
            if self._timeout:
                return
            self._is_unresponsive = is_silent
            logger.warning(
                "engine of model %s gives %s", self.name, "no sign of life" if is_silent else "signs of life"
            )
            self._state.announce()
            self.dispatch()

    def _end_frozen(self, process: EngineProcess, reason: str) -> None:
        """Ends a process that is beyond a bound; its requests fail at once, however long its end takes."""
        with self._state.lock:
            if self.is_stopping:
                return
            self._timeout = f"{reason} and was ended"
            self._is_unresponsive = True
            logger.error("engine of model %s %s", self.name, self._timeout)
            if self._state.model:
                pause = _pause_before_restart(self._state.crashes)
                self._queue.fail_sent(self._crash_error(self._timeout, pause))
            self._state.announce()
        process.kill()

    # After the end of a process; the lock is held in all of these.

    def _after_process(self, end: _ProcessEnd) -> float | None:
        """Does what follows from the end of a process.

        Returns:
            Seconds until the next start; None if there is to be none.
        """
        self._process, self._watchdog = None, None
        self._is_unresponsive = False
        timeout, self._timeout = self._timeout, ""
        if self.is_stopping:
            return self._after_stop()
        if end.process:
            end.process.log_output(logging.ERROR)
        description = timeout or describe_exit(end.status)
        # It has loaded before: that it died without a word while it was started again says nothing of the model.
        is_restart = 0 < self._state.crashes < _MOST_FAILED_RESTARTS and end.failure is None
        if self._state.model or is_restart:
            return self._after_crash(description, kind="frozen" if timeout else "crashed")
        self._after_failed_load(end, description)
        return None

    def _after_stop(self) -> float | None:
        self._process_memory.release(self)
        if self._state.tenure is Tenure.CLOSED:
            self._queue.fail_all(EngineClosedError(f"model {self.name} is closed"))
        self._state.end()
        if not self._queue.has_waiting:
            return None
        self._prepare_start()
        return 0.0

    def _after_crash(self, description: str, *, kind: str) -> float:
        was_draining = self._state.lifecycle is Lifecycle.DRAINING
        pause = _pause_before_restart(self._state.crashes)
        logger.error("engine of model %s %s, starting it again in %.0f s", self.name, description, pause)
        self._queue.fail_sent(self._crash_error(description, pause))
        # One that keeps crashing must not keep its memory, too.
        self._process_memory.release(self)
        self._state.crash(f"the engine {description}", kind=kind)
        if was_draining:
            self.stop()
        self.reconcile()
        return pause

    def _crash_error(self, description: str, pause: float) -> EngineCrashedError:
        return EngineCrashedError(f"the engine of model {self.name} {description}", retry_after=max(1.0, pause))

    def _after_failed_load(self, end: _ProcessEnd, description: str) -> None:
        last_words = f": {end.process.last_words()}" if end.process and end.process.last_words() else ""
        failure = end.failure or ModelLoadError(
            f"model {self.name}: the engine {description} while it was loading{last_words}"
        )
        logger.error("model %s cannot be loaded: %s", self.name, failure.message)
        self._process_memory.release(self)
        self._queue.fail_all(failure)
        self._idle_timer.disarm()
        if self._state.tenure is Tenure.RETIRED and not self._state.pins:
            self._state.close()
        self._state.fail(failure)

    def _prepare_start(self) -> None:
        self._stop_requested.clear()
        self._process_memory = self.memory
        self._state.start()


def _pause_before_restart(crashes: int) -> float:
    """Returns the seconds to wait after a crash: none after the first one, then longer and longer."""
    return min(_LONGEST_PAUSE, 2.0 ** min(crashes - 1, 10)) if crashes else 0.0
