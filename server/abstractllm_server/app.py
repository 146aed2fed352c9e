"""Builds the server, runs it, and stops it in an orderly way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from grpc import aio

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.registry import LLMRegistry
from abstractllm.utils.logging import setup_logging
from abstractllm_server.security.credentials import Security
from abstractllm_server.services.health import Health
from abstractllm_server.settings import ServerSettings, at_line, key_lines
from abstractllm_server.transport.call_interceptor import CallInterceptor
from abstractllm_server.transport.limits import server_options
from abstractllm_server.transport.unix_socket import UnixSocket

__all__ = ["Server", "run"]

logger = logging.getLogger("abstractllm.server")

_LAST_SECOND = 0.8
"""Seconds after the grace in which everything must be closed; then the process ends anyway."""


class Server:
    """One gRPC server over a registry of LLMs; an asynchronous context manager.

    Args:
        registry: Its LLMs; the server closes them when it stops.
        settings: Where and how it listens.

    Attributes:
        address: What clients connect to; known once started.
    """

    def __init__(self, registry: LLMRegistry, settings: ServerSettings) -> None:
        self.address = ""
        self._registry = registry
        self._settings = settings
        self._guard = CallInterceptor(settings.write_timeout)
        self._security = Security(settings)
        self._loads: list[asyncio.Task[None]] = []
        self._socket: UnixSocket | None = None

    async def start(self) -> None:
        """Starts listening, then loads the LLMs that are to be loaded, in the background.

        Raises:
            ConfigurationError: If the address cannot be listened on.
        """
        preload = self._settings.preload
        awaited = [self._registry.default] if preload is None else list(preload)
        gate = [self._security.gate] if self._security.gate else []
        self._grpc = aio.server(
            interceptors=[*gate, self._guard], options=server_options(sum(llm.capacity for llm in self._registry))
        )
        self._health = Health(self._registry, set(awaited))
        _add_services(self._grpc, self._registry, self._health, self._settings.reflection)
        self.address = self._bind()
        await self._grpc.start()
        logger.info("listening on %s", self.address)
        self._loads = [asyncio.create_task(self._load(name)) for name in awaited]
        self._watch = asyncio.create_task(self._security.watch())

    def _bind(self) -> str:
        listen = self._settings.listen
        if listen.startswith("unix:"):
            self._socket = UnixSocket(listen)
            self._socket.bind(self._grpc)
            return self._socket.address
        try:
            credentials = self._security.credentials
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
            logger.info("LLM %s (%s, %s) is ready", name, llm.provider, llm.config.model)
        except AbstractLLMError as error:
            logger.error("LLM %s (%s, %s) cannot be loaded: %s", name, llm.provider, llm.config.model, error)
        except Exception:
            logger.exception("LLM %s (%s, %s) cannot be loaded", name, llm.provider, llm.config.model)
        self._health.tried(name)

    async def wait(self) -> None:
        """Waits until the server has stopped."""
        await self._grpc.wait_for_termination()

    async def stop(self, grace: float | None = None) -> None:
        """Refuses new calls, waits for the running ones, ends those that are left, closes the LLMs.

        Args:
            grace: Seconds to wait; the settings' if absent.
        """
        self._health.stop()
        for task in (*self._loads, self._watch):
            task.cancel()
        try:
            await self._guard.drain(self._settings.grace if grace is None else grace)
            await self._grpc.stop(0)
            await self._registry.close()
        except Exception:
            logger.exception("not everything could be closed")
        finally:
            if self._socket is not None:
                self._socket.close()

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
    setup_logging(settings.log_level.upper())
    timer = threading.Timer(settings.grace + _LAST_SECOND, os._exit, (1,))
    timer.daemon = True
    try:
        registry = LLMRegistry.from_config(
            settings.llms, settings.default, max_loaded=settings.max_loaded, memory_budget=settings.memory_budget
        )
        # The timer goes on until the loop is closed, which waits for its threads.
        asyncio.run(_run(registry, settings, timer))
    except ConfigurationError as error:
        print(f"error: {error.reason}: {at_line(error, path, key_lines(path)).message}", file=sys.stderr)  # noqa: T201
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
    logger.info("stopping: up to %g seconds for %d running calls", settings.grace, server._guard.running)
    timer.start()
    await server.stop()


def _add_services(server: aio.Server, registry: LLMRegistry, health: Health, reflect: bool) -> None:
    from grpc_health.v1 import health_pb2_grpc

    from abstractllm_api.v1 import config_pb2_grpc, generation_pb2_grpc, models_pb2_grpc
    from abstractllm_server.services.config import ConfigServicer
    from abstractllm_server.services.generation import GenerationServicer
    from abstractllm_server.services.models import ModelServicer

    generation_pb2_grpc.add_GenerationServiceServicer_to_server(GenerationServicer(registry), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(registry), server)
    config_pb2_grpc.add_ConfigServiceServicer_to_server(ConfigServicer(registry), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if reflect:
        from grpc_reflection.v1alpha import reflection

        services = ("GenerationService", "ModelService", "ConfigService")
        names = [f"abstractllm_api.v1.{name}" for name in services]
        reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
