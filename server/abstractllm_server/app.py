"""The server as a whole: built, run, and stopped in an orderly way."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm.errors import ConfigurationError
from abstractllm.registry import LLMRegistry, end_child_processes
from abstractllm.types import LlmState
from abstractllm_server.convert.load_reports import LOAD_SERVICE
from abstractllm_server.lifecycle.background_loads import BackgroundLoads, log_state
from abstractllm_server.lifecycle.reload import ConfigurationReloader, Preparation
from abstractllm_server.lifecycle.service_manager import ServiceManager
from abstractllm_server.lifecycle.signals import CLOSING_SECONDS, ProcessSignals
from abstractllm_server.lifecycle.standard_descriptors import open_standard_descriptors
from abstractllm_server.lifecycle.supervision import Supervisor
from abstractllm_server.monitoring.monitor import Monitor
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.warnings import warn_of_file
from abstractllm_server.services.contract import (
    add_services,
    admin_paths,
    generation_paths,
    paths_open_to_inference,
    service_names,
)
from abstractllm_server.services.health import Health
from abstractllm_server.services.load_reports import LoadReports, add_load_reports
from abstractllm_server.services.reflection import add_reflection
from abstractllm_server.settings import ServerSettings, TlsSettings, load_settings, locate
from abstractllm_server.telemetry.audit import Audit
from abstractllm_server.telemetry.call_log import CallLog
from abstractllm_server.telemetry.llm_measurements import LlmMeasurements
from abstractllm_server.telemetry.logs import flush_logs, say, set_log_level, start_logs
from abstractllm_server.telemetry.observer import CallObserver, CallObservers
from abstractllm_server.telemetry.server_load import ServerLoad
from abstractllm_server.telemetry.switch import start_metrics
from abstractllm_server.telemetry.traces import start_traces
from abstractllm_server.transport.connections import Connections, connection_limit, raise_descriptor_limit
from abstractllm_server.transport.guard import Guard
from abstractllm_server.transport.limits import server_options
from abstractllm_server.transport.listener import Listener
from abstractllm_server.transport.operations import ServerLoop

__all__ = ["Server", "run"]

logger = logging.getLogger("abstractllm.server")

_UNSEEN_SECONDS = 0.25
"""Seconds in which the keeper of connections sees one that was opened."""


class Server:
    """One gRPC server over a registry of LLMs; an asynchronous context manager.

    Args:
        registry: Its LLMs; the server closes them when it stops.
        settings: The address to listen on, and all else that the configuration says.

    Attributes:
        address: The address that clients connect to; empty until the server has started.
        metrics: The metrics; None where nobody reads them.
        monitor: Tells those who ask from outside whether the server lives.
        supervisor: Runs what goes on in the background.
    """

    def __init__(self, registry: LLMRegistry, settings: ServerSettings) -> None:
        self.address = ""
        self._registry = registry
        self._settings = settings
        self._access = AccessControl(settings, list(paths_open_to_inference()))
        self._traces = start_traces(lambda path: path in self._guard.methods)
        self.metrics = start_metrics(
            settings.metrics, lambda path: path in self._guard.methods, is_scraped=settings.monitoring is not None
        )
        observers: list[CallObserver] = [CallLog(), Audit(list(admin_paths()))]
        if self.metrics is not None:
            self.metrics.add_source(LlmMeasurements(registry))
            observers.insert(0, self.metrics.observer)
        if self._traces is not None:
            observers.insert(0, self._traces)
        self._reports: LoadReports | None = None
        tells_callers = settings.load_reports.trailers or settings.load_reports.stream
        if tells_callers or self.metrics is not None:
            load = ServerLoad(registry, list(generation_paths()))
            observers.append(load)
            if tells_callers:
                self._reports = LoadReports(load, settings.load_reports.interval)
            if self.metrics is not None:
                self.metrics.add_source(load.measurements)
        self.supervisor = Supervisor()
        self._connections = Connections(connection_limit(settings.max_connections))
        self._guard = Guard(
            self._access,
            self._connections,
            read_timeout=settings.read_timeout,
            write_timeout=settings.write_timeout,
            observers=[CallObservers(observers)],
            trailers=self._reports.trailers if self._reports and settings.load_reports.trailers else None,
        )
        self.monitor = Monitor(
            settings, registry, lambda: self._health.statuses, None if self.metrics is None else self.metrics.render
        )
        self._loads = BackgroundLoads(registry, lambda name: self._health.load_attempted(name))
        self._listener: Listener | None = None

    @property
    def running(self) -> int:
        """The number of calls that run."""
        return self._guard.running

    async def start(self) -> None:
        """Starts listening, then loads the LLMs that are to be loaded, in the background.

        Raises:
            ConfigurationError: If the address cannot be listened on.
        """
        preload = self._settings.preload
        names = [self._registry.default] if preload is None else list(preload)
        capacity = sum(llm.capacity for llm in self._registry)
        self._grpc = aio.server(
            options=server_options(capacity, self._connections.limit, self._settings.max_connection_age)
        )
        self._grpc.add_generic_rpc_handlers((self._guard,))
        self._health = Health(self._registry, set(names))
        self._add_services()
        self._listener = Listener(self._grpc, self._settings.listen, self._access.server_credentials)
        self.address = self._listener.address
        try:
            self.monitor.start(self.supervisor.run_thread)
        except ConfigurationError:
            self._listener.close()
            raise
        await self._grpc.start()
        self._connections.start(self._listener.ports)
        self._access.on_roots_removed(self._close_connections)
        logger.info("listening on %s", self.address)
        for llm in self._registry:
            if llm.name not in names and llm.state[0] is LlmState.FAILED:
                log_state(llm)
        if self.metrics is not None:
            self.metrics.add_source(self.monitor.measurements)
            self.metrics.add_source(self.supervisor.measurements)
            self.metrics.add_source(self._access.measurements)
            self.metrics.add_source(self._connections.measurements)
            self.metrics.add_source(self._guard.measurements)
        self.load(names)
        self.supervisor.run("file watcher", self._access.watch_files)

    def _close_connections(self) -> None:
        """Closes the connections that are open: their callers come again with certificates that are trusted now."""
        # One may have been opened that the keeper has not seen yet.
        self._connections.close_opened_before(time.monotonic() + _UNSEEN_SECONDS)

    def _add_services(self) -> None:
        methods = self._guard.methods
        add_services(methods, self._registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, methods)
        names = [*service_names(), health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        if self._reports is not None and self._settings.load_reports.stream:
            add_load_reports(self._reports, methods)
            names.append(LOAD_SERVICE)
        if self._settings.reflection:
            add_reflection(names, methods)

    @property
    def preparations(self) -> Mapping[str, Preparation]:
        """The settings that can change while the server runs, and how each change is prepared."""
        return {
            "tokens": self._access.prepare,
            **{f"tls.{key}": self._access.prepare for key in TlsSettings.model_fields},
            **dict.fromkeys(("read_timeout", "write_timeout"), self._prepare_timeouts),
            "log_level": lambda settings: lambda: set_log_level(settings.log_level),
        }

    def _prepare_timeouts(self, settings: ServerSettings) -> Callable[[], None]:
        return lambda: self._guard.set_timeouts(settings.read_timeout, settings.write_timeout)

    def load(self, names: Iterable[str], wanted: Iterable[str] | None = None) -> None:
        """Begins to load LLMs, in the background; see `BackgroundLoads.begin`."""
        self._loads.begin(names, wanted)

    async def wait(self) -> None:
        """Waits until the server has stopped."""
        await self._grpc.wait_for_termination()

    async def stop(self, grace: float | None = None) -> None:
        """Refuses new calls, waits for the running ones, ends those that have not ended by then, closes the LLMs.

        Args:
            grace: Seconds to wait; the settings' if absent.
        """
        self.supervisor.stop()
        self._loads.stop()
        try:
            await asyncio.gather(
                self._health.stop(), self._guard.drain(self._settings.grace if grace is None else grace)
            )
            await self._grpc.stop(0)
            await self._registry.close()
        except Exception:
            logger.exception("not everything could be closed")
        finally:
            self._connections.stop()
            if self._listener is not None:
                self._listener.close()
            self.monitor.stop()
            telemetry = [part for part in (self._traces, self.metrics) if part is not None]
            await asyncio.gather(*(asyncio.to_thread(part.close) for part in telemetry))

    def abandon(self) -> None:
        """Removes what a process leaves behind that is ended by force: the file of its unix socket."""
        if self._listener is not None:
            self._listener.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(0)


def run(
    settings: ServerSettings,
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    signals: ProcessSignals | None = None,
) -> int:
    """Runs a server until SIGTERM or SIGINT; a second signal ends it at once.

    The process ends with the server: once everything is closed, without what Python does at its exit, which may take
    long or hang; by force, with the status 1, if that is not so a second after the grace.

    Args:
        settings: The checked configuration.
        path: The file it came from, which is read again at SIGHUP.
        flags: The keys that override the file's.
        signals: The process's signals, if they are taken in already.

    Returns:
        The process's exit status, if the server could not be started.
    """
    open_standard_descriptors()
    start_logs(settings.log_level, settings.log_format)
    if path is not None:
        warn_of_file(path)
    are_ours = signals is None
    signals = signals or ProcessSignals()
    if are_ours:
        signals.install()
    signals.before_forced_end(end_child_processes)
    signals.before_forced_end(flush_logs)
    try:
        raise_descriptor_limit()
        registry = LLMRegistry.from_config(
            settings.llms, settings.default, max_loaded=settings.max_loaded, memory_budget=settings.memory_budget
        )
        with asyncio.Runner(loop_factory=ServerLoop) as runner:
            runner.run(_run(registry, settings, path, flags or {}, signals))
    except ConfigurationError as error:
        say(f"error: {error.reason}: {locate(error, path).message}")
        if are_ours:
            signals.restore()
    return 2


async def _run(
    registry: LLMRegistry,
    settings: ServerSettings,
    path: Path | None,
    flags: Mapping[str, Any],
    signals: ProcessSignals,
) -> None:
    server = Server(registry, settings)
    manager = ServiceManager()

    def load() -> ServerSettings:
        if path is None:
            raise ConfigurationError("there is no configuration file that could be read again")
        if not path.is_file():  # a pipe would be waited for
            raise ConfigurationError(f"{path} is not a file that could be read again")
        return load_settings(path, flags)

    def set_grace(settings: ServerSettings) -> None:
        signals.grace = settings.grace

    set_grace(settings)
    signals.before_forced_end(server.abandon)
    preparations = {**server.preparations, "grace": lambda settings: lambda: set_grace(settings)}
    reloader = ConfigurationReloader(load, settings, registry, preparations, manager, server.load)
    server.supervisor.watch_other_threads()
    # What is loaded by now stays. Passes of the collector over it would hold up all calls, each for 50 ms and more.
    gc.collect()
    gc.freeze()
    stopped = asyncio.Event()
    signals.attach(on_stop=stopped.set, on_reload=reloader.request)
    await server.start()
    manager.ready(f"listening on {server.address}")
    server.supervisor.run("reload", reloader.run)
    if server.metrics is not None:
        server.metrics.add_source(reloader.measurements)
    if manager.watchdog_interval is not None:
        server.supervisor.run("watchdog", manager.watch)
    await stopped.wait()
    manager.stopping(signals.seconds_left + CLOSING_SECONDS)
    logger.info("stopping: up to %.1f seconds for %d running calls", signals.seconds_left, server.running)
    await server.stop(signals.seconds_left)
    # Here, not behind the loop's end, which waits for every thread that something was given to, and one may hang.
    signals.end(0)
