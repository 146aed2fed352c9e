"""The server as a whole: built, run, and stopped in an orderly way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.registry import LLMRegistry
from abstractllm.types import LlmState
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.services.contract import add_services, admin_paths, paths_open_to_inference, service_names
from abstractllm_server.services.health import Health
from abstractllm_server.services.reflection import add_reflection
from abstractllm_server.settings import ServerSettings, locate
from abstractllm_server.telemetry.audit import Audit
from abstractllm_server.telemetry.call_log import CallLog
from abstractllm_server.telemetry.llm_measurements import LlmMeasurements
from abstractllm_server.telemetry.logs import say, start_logs
from abstractllm_server.telemetry.observer import CallObserver
from abstractllm_server.telemetry.switch import start_metrics
from abstractllm_server.telemetry.traces import start_traces
from abstractllm_server.transport.guard import Guard
from abstractllm_server.transport.limits import server_options
from abstractllm_server.transport.unix_socket import UnixSocket

__all__ = ["Server", "run"]

logger = logging.getLogger("abstractllm.server")

_CLOSING_SECONDS = 0.8
"""Seconds after the grace in which everything must be closed; then the process ends anyway."""


class Server:
    """One gRPC server over a registry of LLMs; an asynchronous context manager.

    Args:
        registry: Its LLMs; the server closes them when it stops.
        settings: The address to listen on, and all else that the configuration says.

    Attributes:
        address: The address that clients connect to; empty until the server has started.
        metrics: The metrics; None where nobody reads them.
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
        self._guard = Guard(
            self._access,
            read_timeout=settings.read_timeout,
            write_timeout=settings.write_timeout,
            observers=observers,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: UnixSocket | None = None

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
        self._grpc = aio.server(options=server_options(capacity))
        self._grpc.add_generic_rpc_handlers((self._guard,))
        self._health = Health(self._registry, set(names))
        self._add_services()
        self.address = self._bind()
        await self._grpc.start()
        logger.info("listening on %s", self.address)
        for llm in self._registry:
            if llm.name not in names and llm.state[0] is LlmState.FAILED:
                self._log_state(llm.name)
        self._tasks = [asyncio.create_task(self._load(name)) for name in names]
        self._tasks.append(asyncio.create_task(self._access.watch_files()))

    def _add_services(self) -> None:
        methods = self._guard.methods
        add_services(methods, self._registry)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, methods)
        if self._settings.reflection:
            health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            add_reflection([*service_names(), health], methods)

    def _bind(self) -> str:
        listen = self._settings.listen
        if listen.startswith("unix:"):
            self._socket = UnixSocket(listen)
            self._socket.bind(self._grpc)
            return self._socket.address
        try:
            credentials = self._access.server_credentials
            if credentials is None:
                port = self._grpc.add_insecure_port(listen)
            else:
                port = self._grpc.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"listen: cannot listen on {listen}; is the port in use?", field="listen", requested=listen
            ) from error
        return f"{listen.rpartition(':')[0]}:{port}"

    async def _load(self, name: str) -> None:
        llm = self._registry[name]
        try:
            await llm.load()
            self._log_state(name)
        except AbstractLLMError as error:
            logger.error("LLM %s (%s, %s) cannot be loaded: %s", name, llm.provider, llm.config.model, error)
        except Exception:
            logger.exception("LLM %s (%s, %s) cannot be loaded", name, llm.provider, llm.config.model)
        self._health.load_attempted(name)

    def _log_state(self, name: str) -> None:
        """Logs the state of an LLM that was loaded: one without a key needs no loading, and cannot answer."""
        llm = self._registry[name]
        state, reason = llm.state
        words = f"is {state.lower()}" + (f": {reason}" if reason else "")
        level = logging.INFO if state is LlmState.READY else logging.ERROR
        logger.log(level, "LLM %s (%s, %s) %s", name, llm.provider, llm.config.model, words)

    async def wait(self) -> None:
        """Waits until the server has stopped."""
        await self._grpc.wait_for_termination()

    async def stop(self, grace: float | None = None) -> None:
        """Refuses new calls, waits for the running ones, ends those that have not ended by then, closes the LLMs.

        Args:
            grace: Seconds to wait; the settings' if absent.
        """
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(
                self._health.stop(), self._guard.drain(self._settings.grace if grace is None else grace)
            )
            await self._grpc.stop(0)
            await self._registry.close()
        except Exception:
            logger.exception("not everything could be closed")
        finally:
            if self._socket is not None:
                self._socket.close()
            telemetry = [part for part in (self._traces, self.metrics) if part is not None]
            await asyncio.gather(*(asyncio.to_thread(part.close) for part in telemetry))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(0)


def run(settings: ServerSettings, path: Path | None = None) -> int:
    """Runs a server until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        settings: The checked configuration.
        path: The file it came from, for messages.

    Returns:
        The process's exit status.
    """
    start_logs(settings.log_level, settings.log_format)
    timer = threading.Timer(settings.grace + _CLOSING_SECONDS, os._exit, (1,))
    timer.daemon = True
    try:
        registry = LLMRegistry.from_config(
            settings.llms, settings.default, max_loaded=settings.max_loaded, memory_budget=settings.memory_budget
        )
        # The timer goes on until the loop is closed, which waits for its threads.
        asyncio.run(_run(registry, settings, timer))
    except ConfigurationError as error:
        say(f"error: {error.reason}: {locate(error, path).message}")
        return 2
    finally:
        timer.cancel()
    return 0


async def _run(registry: LLMRegistry, settings: ServerSettings, timer: threading.Timer) -> None:
    server = Server(registry, settings)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            os._exit(130)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await server.start()
    await stopped.wait()
    logger.info("stopping: up to %g seconds for %d running calls", settings.grace, server.running)
    timer.start()
    await server.stop()
