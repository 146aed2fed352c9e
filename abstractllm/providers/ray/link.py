"""The link of an LLM to its deployment: connects, deploys, and watches the replicas from a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from abstractllm.enums import LlmState
from abstractllm.errors import ProviderUnavailableError, ServerShuttingDownError
from abstractllm.providers.ray.cluster import cluster
from abstractllm.providers.ray.deployment import ApplicationState, Definition, delete, deploy, find, handle_of
from abstractllm.providers.ray.errors import UnansweredError, missing, translate
from abstractllm.providers.ray.plain import decode
from abstractllm.providers.ray.settings import Settings, Version

__all__ = ["DeploymentLink", "Report"]

logger = logging.getLogger("abstractllm.ray")

_LOOK_INTERVAL = 1.0
"""Seconds between two looks at the replicas; with many of them it grows, as each is asked."""
_REPLICAS_A_SECOND = 100
_DEPLOYING_INTERVAL = 0.2
_REPORT_TIMEOUT = 5.0
_FIT_ATTEMPTS = 6
"""Times that busy replicas are asked whether the configuration describes them: to deploy would replace them all."""
_STOPPING_TIMEOUT = 5.0
_TROUBLES = 3
"""Looks in a row that must fail before Ray counts as gone: its controller may just be starting again."""
_STALE_SECONDS = 1.0
"""Time of Ray Serve's controller, which takes a tenth of it, for forgetting why the deployment before has failed."""
_GONE = "Ray does not answer any more"
_AGAIN_SECONDS = 5.0
"""Pause before what may mend itself is tried again, without a request: a server that is not ready gets none."""


@dataclass(frozen=True, slots=True)
class Report:
    """A replica, as it tells of itself."""

    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name that Ray Serve has given to it."""
        return str(self.facts["replica"])

    @property
    def version(self) -> Version:
        """The version of its configuration."""
        first, second = self.facts["version"]
        return first, second


class DeploymentLink:
    """The way to a deployment's replicas.

    Args:
        define: Returns the deployment as the configuration has it now.
        settings: The LLM's configuration, as servers and replicas agree on it.
        on_change: Called, from a thread, whenever the state may have changed.
    """

    def __init__(self, define: Callable[[], Definition], settings: Settings, on_change: Callable[[], None]) -> None:
        self._define = define
        self._settings = settings
        self._on_change = on_change
        self._lock = threading.Lock()
        self._attempt: Future[None] | None = None
        """The latest attempt at connecting and deploying; it has succeeded while the replicas are watched."""
        self._end = threading.Event()
        """Set when the thread that watches is to end: the LLM is closed, or is deployed anew."""
        self._wakeup = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_deployed = self._is_closed = False
        self._connection: int | None = None
        """The number of the connection to the cluster."""
        self._waits: set[tuple[asyncio.AbstractEventLoop, asyncio.Timeout]] = set()
        """What requests wait for, which Ray does not tell that the cluster is gone."""
        self._state: tuple[LlmState, str] = (LlmState.UNLOADED, "")
        self._application = ""
        self._handle: Any = None
        self.reports: tuple[Report, ...] = ()
        """What each replica that runs has told of itself last."""
        self.is_deploying = False
        """True while replicas are missing that were not there before, or run that are to be replaced."""

    @property
    def state(self) -> tuple[LlmState, str]:
        """The state of the deployment, and the reason where not all is well."""
        return self._state

    @property
    def is_idle(self) -> bool:
        """True if nobody has needed the deployment yet."""
        return self._attempt is None

    @property
    def is_connected(self) -> bool:
        """True if this LLM is connected to the cluster, and it has not been given up as gone."""
        return self._connection is not None and self._connection == cluster.connection

    @property
    def is_closed(self) -> bool:
        """True once the LLM is closed."""
        return self._is_closed

    @property
    def handle(self) -> Any:
        """The handle of the deployment; None while there is none."""
        return self._handle

    def ensure(self) -> Future[None]:
        """Returns the attempt that makes the deployment available: the one that runs or has succeeded, else a new one.

        Any number of callers follow one attempt, which none of them ends by leaving.
        """
        with self._lock:
            if self._is_closed:
                raise ServerShuttingDownError("the LLM is closed")
            if self._attempt is None or (self._attempt.done() and self._state[0] is LlmState.FAILED):
                self._leave_watch()
                return self._start(self._run)
            return self._attempt

    def _start(self, run: Callable[[Future[None], threading.Event], None]) -> Future[None]:
        """Begins an attempt; called with the lock."""
        self._attempt = Future()
        arguments = (self._attempt, self._end)
        self._thread = threading.Thread(target=run, args=arguments, name=f"ray {self._define().llm}", daemon=True)
        self._thread.start()
        return self._attempt

    @contextlib.contextmanager
    def ending(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Lets a wait for Ray come to its end when the cluster is found to be gone.

        Args:
            limit: The time limit of the wait, which has none yet.
        """
        wait = (asyncio.get_running_loop(), limit)
        self._waits.add(wait)
        if self._connection != cluster.connection:
            _end_wait(limit)
        try:
            yield
        finally:
            self._waits.discard(wait)

    def renew(self) -> None:
        """Has the deployment made anew, since the configuration describes another one; its replicas change in turns."""
        with self._lock:
            if self._attempt is None or self._is_closed:
                return
            self._leave_watch()
            self._attempt = None
        self.ensure()

    def _leave_watch(self) -> None:
        """Has the thread end that watches now; the next one gets an event of its own."""
        self._end.set()
        self._wakeup.set()
        self._end = threading.Event()

    def close(self) -> None:
        """Stops watching, ends the replicas if that is configured, and leaves the cluster."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            self._attempt = None
            self._leave_watch()
        if was_closed:
            return
        if self._has_deployed and self._define().keys.delete_on_stop and not cluster.is_local:
            with contextlib.suppress(Exception):
                delete(self._application)
        if self._thread is not None:
            self._thread.join(_STOPPING_TIMEOUT)
        self._handle, self.reports = None, ()
        self._end_waits()
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            cluster.leave(connection)

    def look(self) -> None:
        """Looks at the replicas now, from the thread that calls; nothing happens while there are none."""
        if self._handle is not None:
            with contextlib.suppress(Exception):
                definition = self._define()
                self._look(definition, find(definition.application))

    def look_soon(self) -> None:
        """Has the thread that watches look at once."""
        self._wakeup.set()

    # In the thread.

    def _run(self, attempt: Future[None], end: threading.Event) -> None:
        self._become(LlmState.LOADING, "connecting to Ray")
        self._try(attempt, end)

    def _try(self, attempt: Future[None], end: threading.Event) -> None:
        definition = self._define()
        try:
            self._join(definition, end)
            self._application = definition.application
            self._open(definition, end)
        except Exception as error:
            failure = translate(error)
            if not end.is_set():
                self._become(LlmState.FAILED, failure.message)
            attempt.set_exception(failure)
            if isinstance(failure, ProviderUnavailableError):
                self._try_again(end)
            return
        attempt.set_result(None)
        self._watch(definition, end)

    def _try_again(self, end: threading.Event) -> None:
        """Begins another attempt after a pause, during which the state stays what it is."""
        if not end.wait(_AGAIN_SECONDS):
            with self._lock:
                if not end.is_set():
                    self._start(self._try)

    def _join(self, definition: Definition, end: threading.Event) -> None:
        """Connects to the cluster, unless this LLM is; a connection that was given up is none."""
        if self.is_connected:
            return
        connection = cluster.join(definition.keys)
        with self._lock:
            if not end.is_set():
                self._connection = connection
                return
        cluster.leave(connection)
        raise ServerShuttingDownError("the LLM was closed, or is deployed anew")

    def _open(self, definition: Definition, end: threading.Event) -> None:
        """Deploys, or finds, the application, and waits until a replica answers."""
        state, stale_until = find(definition.application), 0.0
        if definition.keys.deploy:
            is_there = state.status in ("RUNNING", "DEPLOYING", "UNHEALTHY") and self._fits(definition)
            if not is_there:
                self._become(LlmState.LOADING, "deploying")
                self._has_deployed = True  # before it is: who closes the LLM meanwhile has to end it behind that
                deploy(definition, self._settings.begin())
                stale_until = time.monotonic() + _STALE_SECONDS
                logger.info("LLM %s: deployed as application %s of Ray Serve", definition.llm, definition.application)
            self._has_deployed = True
        began = time.monotonic()
        while True:
            state = find(definition.application)
            self.is_deploying = state.status == "DEPLOYING"
            # One is enough to answer: others may have no room, or be replaced in turns.
            if state.status == "RUNNING" or state.running:
                break
            if (not state.status or state.is_failed or state.is_hopeless) and time.monotonic() > stale_until:
                raise state.error(definition.application)
            total = state.starting
            words = f"replicas that run: 0 of {total}" if total else "waiting for room in the cluster"
            self._become(LlmState.LOADING, words)
            if time.monotonic() - began > definition.keys.deploy_timeout:
                raise missing(definition.application, f"deploy_timeout is over; {state.message}")
            if end.wait(_DEPLOYING_INTERVAL):
                raise ServerShuttingDownError("the LLM was closed, or is deployed anew")
        self._handle = handle_of(definition.application)
        with contextlib.suppress(Exception):  # the handle may not know of the replicas yet; they are looked at again
            self._look(definition, state)
        if definition.keys.deploy:
            self._settings.bring_file()

    def _fits(self, definition: Definition) -> bool:
        """Returns True if replicas of this very deployment run already: another server has deployed it."""
        try:
            self._handle = handle_of(definition.application)
            reports = self._ask_all_again()
        except Exception:  # of a deployment that has no replica, or others than ours
            return False
        if not reports or any(report.facts["digest"] != definition.digest for report in reports):
            return False
        self._settings.hear(reports)
        return True

    def _watch(self, definition: Definition, end: threading.Event) -> None:
        troubles = 0
        while not end.is_set():
            self._wakeup.wait(max(_LOOK_INTERVAL, len(self.reports) / _REPLICAS_A_SECOND))
            self._wakeup.clear()
            if end.is_set():
                return
            if self._connection != cluster.connection:  # another LLM has found it gone
                self._lose(end, _GONE)
                return
            try:
                state = find(definition.application)
                self._look(definition, state)
            except SystemExit:  # so Ray ends a call when this process has left it
                return
            except Exception as error:
                troubles += 1
                if troubles < _TROUBLES or end.is_set():
                    continue
                if isinstance(error, UnansweredError) and self._connection is not None:
                    cluster.give_up(self._connection)
                    self._lose(end, f"{_GONE}: {error.message}")
                    return
                self.reports = ()
                self._become(LlmState.FAILED, translate(error).message)
            else:
                troubles = 0 if state.status else troubles + 1
                if troubles >= _TROUBLES:  # it was deleted, or Ray Serve was shut down
                    self._lose(end, self._state[1])
                    return

    def _lose(self, end: threading.Event, reason: str) -> None:
        """Ends what waits for a cluster, or an application, that is gone; connects, or deploys, again."""
        logger.warning("LLM %s: %s", self._define().llm, reason)
        self.reports = ()
        self._become(LlmState.FAILED, reason)
        self._end_waits()
        self._try_again(end)

    def _end_waits(self) -> None:
        """Ends what waits for Ray, which would keep it until a replica comes."""
        for loop, limit in self._waits.copy():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_end_wait, limit)

    def _look(self, definition: Definition, state: ApplicationState) -> None:
        """Looks at the application and its replicas, and brings those up to date that are behind."""
        self.is_deploying = state.status == "DEPLOYING"
        if not state.status or state.is_hopeless or (state.is_failed and not state.running):
            self.reports = ()
            self._become(LlmState.FAILED, state.error(definition.application).message)
            if state.status:
                self._end_waits()
            return
        self.reports = tuple(self._ask_all(time.monotonic() + _REPORT_TIMEOUT)) if state.running else ()
        self._settings.hear(self.reports)
        self._settings.tell(self._handle, self.reports)
        self._become(*self._judge(definition, state))

    def _ask_all_again(self) -> list[Report]:
        """Asks all replicas, and again while none of them answers in time, since they are busy."""
        reports: list[Report] = []
        for _ in range(_FIT_ATTEMPTS):
            try:
                answers = self._answers(time.monotonic() + _REPORT_TIMEOUT)
            except TimeoutError as error:
                answers = [error]
            reports = _reports_of(answers)
            if reports or not any(isinstance(answer, TimeoutError) for answer in answers):
                break
        return reports

    def _ask_all(self, until: float) -> list[Report]:
        return _reports_of(self._answers(until))

    def _answers(self, until: float) -> list[Any]:
        """Returns what each replica answers, or the error that it ends in."""
        response = self._handle.broadcast("report", list(self._settings.version))
        answers: list[Any] = response.results(timeout_s=max(0.1, until - time.monotonic()), return_exceptions=True)
        return answers

    def _judge(self, definition: Definition, application: ApplicationState) -> tuple[LlmState, str]:
        """Returns the state that follows from those of the replicas."""
        keys = definition.keys
        states = [LlmState(report.facts["state"]) for report in self.reports]
        wanted = keys.replicas if keys.autoscaling is None else keys.autoscaling.min_replicas
        words = "" if len(states) >= wanted else f"replicas that run: {len(states)} of {wanted}"
        if application.is_failed:  # those of the deployment before go on
            words = "; ".join(filter(None, [words, application.error(definition.application).message]))
        if not states:
            if wanted == 0:
                return LlmState.UNLOADED, "no replica runs; the next request starts one"
            return LlmState.LOADING, words or "no replica runs"
        for state in (LlmState.READY, LlmState.UNLOADED, LlmState.LOADING):
            if state in states:
                reasons = {report.facts["reason"] for report in self.reports if report.facts["reason"]}
                return state, "; ".join(filter(None, [words, *sorted(reasons)]))
        return LlmState.FAILED, "; ".join(sorted({report.facts["reason"] for report in self.reports}))

    def _become(self, state: LlmState, reason: str) -> None:
        if self._state != (state, reason):
            self._state = (state, reason)
            self._on_change()


def _reports_of(answers: Iterable[Any]) -> list[Report]:
    # One that has died meanwhile is just not there.
    results = [answer["result"] for answer in answers if isinstance(answer, dict) and "result" in answer]
    reports = [Report(decode(result)) for result in results]
    return sorted(reports, key=lambda report: report.name)


def _end_wait(limit: asyncio.Timeout) -> None:
    with contextlib.suppress(RuntimeError):  # it is over already
        limit.reschedule(asyncio.get_running_loop().time())
