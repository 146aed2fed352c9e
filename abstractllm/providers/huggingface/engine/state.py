"""The state of one engine: its independent facts, and the transitions of its lifecycle in one place.

Four facts change independently of each other:

- The *lifecycle* of the process, one of `Lifecycle`; each transition is a method of `EngineState`:

      UNLOADED, FAILED --start--> LOADING --ready--> READY --drain--> DRAINING
      LOADING --fail--> FAILED --dismiss_failure--> UNLOADED
      READY, DRAINING --crash--> LOADING, for a new process
      LOADING, READY, DRAINING --stop--> STOPPING --end--> UNLOADED

- The *tenure* of the engine, one of `Tenure`: an LLM uses it (OPEN), uses another one instead (RETIRED), or it takes no
  request any more (CLOSED). RETIRED becomes OPEN again if the LLM changes its mind in time; CLOSED is for good.
- The *pins*: how many callers wait for it to be loaded, or are about to use it. They keep a retired engine open.
- Its *requests*, which are kept elsewhere: in `AdmissionQueue`.

What users see of it is the *report*: it changes with the lifecycle, except that a process that is drained or stopped is
reported as before until it has ended. What the memory for models asks (idle, leaving) follows from the facts and is not
stored. Whether a fact has a consequence, such as the end of a process that is drained, the supervisor decides.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import enum
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.engine.history import History
from abstractllm.providers.huggingface.protocol.messages import Counters, Loaded

__all__ = ["EngineState", "Lifecycle", "Report", "ServedModel", "Tenure"]

logger = logging.getLogger("abstractllm.engine")


class Lifecycle(enum.Enum):
    """The stages of an engine's process."""

    UNLOADED = enum.auto()
    """There is no process."""
    LOADING = enum.auto()
    """A process waits for memory, starts, or loads the model."""
    READY = enum.auto()
    """The process answers requests."""
    DRAINING = enum.auto()
    """The process answers the requests that it has, and is given no others; then it is stopped."""
    STOPPING = enum.auto()
    """The process is being ended, or is not to be started after all."""
    FAILED = enum.auto()
    """There is no process: the model could not be loaded."""


class Tenure(enum.Enum):
    """The stages of an engine's use by an LLM."""

    OPEN = enum.auto()
    RETIRED = enum.auto()
    """It is closed once its requests are answered and it has no pins."""
    CLOSED = enum.auto()
    """It takes no request any more."""


@dataclass(frozen=True, slots=True)
class Report:
    """The facts about an engine that its users see."""

    state: LlmState = LlmState.UNLOADED
    reason: str = ""
    phase: str = ""
    """Of loading: `starting`, `waiting`, or a phase that the process names."""
    fraction: float | None = None
    """Of the phase, from 0 to 1."""
    failure: AbstractLLMError | None = None
    """The reason why the model could not be loaded, until it is tried again."""


@dataclass(slots=True)
class ServedModel:
    """A loaded model.

    Args:
        description: What its process says of it.
        load_seconds: Seconds that loading it took.
    """

    description: Loaded
    load_seconds: float
    loaded_at: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""
    counters: Counters = field(default_factory=Counters)
    """As the process last told them."""


class EngineState:
    """The facts about one engine except its requests; see the module.

    `lock` is held by whoever changes anything, or reads more than one fact. Single facts may be read without it.

    Args:
        on_change: Called, from any thread, when the reported state or its reason has changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.lifecycle = Lifecycle.UNLOADED
        self.tenure = Tenure.OPEN
        self.pins = 0
        self.report = Report()
        self.model: ServedModel | None = None
        """The loaded model, until its process has ended."""
        self.loads = 0
        """The number of times that the model became ready."""
        self.crashes = 0
        """The crashes since a request was last completed, or the process was last stopped."""
        self.history = History()
        self.last_used = time.monotonic()
        self._on_change = on_change
        self._change_watchers: list[concurrent.futures.Future[None]] = []
        self._end_watchers: list[concurrent.futures.Future[None]] = []

    @property
    def is_down(self) -> bool:
        """True while there is no process, and none is about to be started."""
        return self.lifecycle in (Lifecycle.UNLOADED, Lifecycle.FAILED)

    @property
    def is_leaving(self) -> bool:
        """True once the process is to end as soon as it can."""
        return self.lifecycle in (Lifecycle.DRAINING, Lifecycle.STOPPING) or self.tenure is not Tenure.OPEN

    # Lifecycle.

    def start(self) -> None:
        """A process is wanted."""
        self._move(Lifecycle.LOADING, origins=(Lifecycle.UNLOADED, Lifecycle.FAILED))
        self._publish(Report(LlmState.LOADING, phase="starting"))

    def wait_for_memory(self, reason: str) -> None:
        """The process cannot be started yet."""
        self._publish(Report(LlmState.LOADING, reason, "waiting"))

    def launch(self) -> None:
        """The process is started; after a crash the report goes on to say why."""
        self._publish(Report(LlmState.LOADING, self.report.reason if self.crashes else "", "starting"))

    def progress(self, phase: str, fraction: float | None) -> None:
        """The process tells how far it has come with loading the model."""
        self._publish(dataclasses.replace(self.report, phase=phase, fraction=fraction))

    def ready(self, description: Loaded, load_seconds: float) -> None:
        """The model is loaded."""
        self._move(Lifecycle.READY, origins=(Lifecycle.LOADING,))
        self.model = ServedModel(description, load_seconds)
        self.loads += 1
        self.history.loads += 1
        self.history.load_seconds += load_seconds
        self.last_used = self.model.loaded_at
        self._publish(Report(LlmState.READY, description.note))

    def drain(self) -> None:
        """The process is given no further request."""
        self._move(Lifecycle.DRAINING, origins=(Lifecycle.READY,))

    def stop(self) -> None:
        """The process is to end."""
        self._move(Lifecycle.STOPPING, origins=(Lifecycle.LOADING, Lifecycle.READY, Lifecycle.DRAINING))

    def crash(self, reason: str, *, kind: str = "crashed") -> None:
        """The process ended unasked; another one is wanted.

        Args:
            reason: The reason, for those who look at the state.
            kind: The kind of the end, in one word, by which such ends are counted.
        """
        self._move(Lifecycle.LOADING, origins=(Lifecycle.LOADING, Lifecycle.READY, Lifecycle.DRAINING))
        self._forget_model()
        self.crashes += 1
        self.history.restarts[kind] += 1
        self._publish(Report(LlmState.LOADING, reason, "starting"))

    def announce(self) -> None:
        """Tells listeners of a change that is not the state's: the process gives signs of life again, or no more."""
        try:
            self._on_change()
        except Exception:  # a listener's fault is not the engine's
            logger.exception("a listener to the state of a model failed")

    def fail(self, failure: AbstractLLMError) -> None:
        """The model cannot be loaded."""
        self._move(Lifecycle.FAILED, origins=(Lifecycle.LOADING,))
        self.history.failed_loads += 1
        self._publish(Report(LlmState.FAILED, failure.message, failure=failure))

    def dismiss_failure(self) -> None:
        """The failure is not to be reported any more."""
        self._move(Lifecycle.UNLOADED, origins=(Lifecycle.FAILED,))
        self._publish(Report())

    def end(self) -> None:
        """The process that was to end has ended."""
        self._move(Lifecycle.UNLOADED, origins=(Lifecycle.STOPPING,))
        self._forget_model()
        self.crashes = 0
        self._publish(Report())
        watchers, self._end_watchers = self._end_watchers, []
        _resolve(watchers)

    def _forget_model(self) -> None:
        if self.model is not None:
            self.history.add_process(self.model.counters)
            self.model = None

    def _move(self, to: Lifecycle, *, origins: tuple[Lifecycle, ...]) -> None:
        assert self.lifecycle in origins, f"an engine that is {self.lifecycle.name} cannot become {to.name}"
        self.lifecycle = to

    # Tenure.

    def retire(self) -> None:
        """The LLM uses another engine from now on."""
        if self.tenure is Tenure.OPEN:
            self.tenure = Tenure.RETIRED

    def reinstate(self) -> bool:
        """The LLM uses the engine again; returns False if it is closed already."""
        if self.tenure is Tenure.RETIRED:
            self.tenure = Tenure.OPEN
        return self.tenure is Tenure.OPEN

    def close(self) -> None:
        """The engine takes no request any more."""
        self.tenure = Tenure.CLOSED

    # Watching.

    def watch(self) -> concurrent.futures.Future[None]:
        """Returns a future that is done after the next change of the report."""
        watcher: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._change_watchers.append(watcher)
        return watcher

    def unwatch(self, watcher: concurrent.futures.Future[None]) -> None:
        """Forgets a watcher that nobody waits for any more."""
        if watcher in self._change_watchers:
            self._change_watchers.remove(watcher)

    def watch_end(self) -> concurrent.futures.Future[None]:
        """Returns a future that is done when the process, which is STOPPING, has ended; at once if there is none."""
        watcher: concurrent.futures.Future[None] = concurrent.futures.Future()
        if self.is_down:
            watcher.set_result(None)
        else:
            self._end_watchers.append(watcher)
        return watcher

    def _publish(self, report: Report) -> None:
        before, self.report = self.report, report
        watchers, self._change_watchers = self._change_watchers, []
        _resolve(watchers)
        if (before.state, before.reason) != (report.state, report.reason):
            self.announce()


def _resolve(watchers: list[concurrent.futures.Future[None]]) -> None:
    for watcher in watchers:
        if watcher.set_running_or_notify_cancel():  # else its waiter has left
            watcher.set_result(None)
