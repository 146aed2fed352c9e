"""The health service: `liveness`, `""` (the default LLM can answer) and `llm/<name>`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from abstractllm.enums import LlmState
from abstractllm.registry import LLMRegistry

__all__ = ["Health"]

_TELLING_TIMEOUT = 0.3
"""Seconds that watchers have to take the last status: part of the last second that a stopping server has."""
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it ships no types
    """Answers health checks by the LLMs' states.

    An LLM that is idle and unloaded counts as SERVING, since a request loads it; one that is loading, or failed to,
    does not, nor does one whose process gives no sign of life. LLMs that are to be loaded at start do not count as
    SERVING before they have been. A server that stops is alive until it has ended, but ready for nothing.

    The servicer that grpc ships holds a lock while it sends to a watcher: a watcher that reads nothing would hold up
    every change, and the server's stop.

    Args:
        registry: The LLMs.
        preloading: The names of the LLMs that are to be loaded at start.
    """

    def __init__(self, registry: LLMRegistry, preloading: set[str]) -> None:
        self._registry = registry
        self._preloading = preloading
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._statuses: dict[str, HealthCheckResponse.ServingStatus] = {}
        self._change = asyncio.Event()
        self._watchers: set[asyncio.Task[Any] | None] = set()
        """The calls of Watch that may not have sent the latest status yet, once the server stops."""
        self._all_told = asyncio.Event()
        registry.on_change(self._changed)
        self._update()

    @property
    def statuses(self) -> Mapping[str, HealthCheckResponse.ServingStatus]:
        """Every service's status, by its name; any thread may read it, since it is replaced as a whole."""
        return self._statuses

    async def Check(self, request: HealthCheckRequest, context: aio.ServicerContext[Any, Any]) -> HealthCheckResponse:
        """Answers with a service's status; NOT_FOUND if there is no such service."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return HealthCheckResponse(status=self._statuses[request.service])

    async def List(self, request: HealthListRequest, context: aio.ServicerContext[Any, Any]) -> HealthListResponse:
        """Answers with every service's status."""
        statuses = {name: HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: HealthCheckRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[HealthCheckResponse, None]:
        """Answers with a service's status, now and after every change; SERVICE_UNKNOWN if there is no such service."""
        last = None
        watcher = asyncio.current_task()
        self._watchers.add(watcher)
        try:
            while True:
                change, is_last = self._change, self._is_stopping
                status = self._statuses.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
                if status != last:
                    yield HealthCheckResponse(status=status)
                last = status
                if is_last:
                    self._forget(watcher)
                await change.wait()
        finally:
            self._forget(watcher)

    def load_attempted(self, name: str) -> None:
        """Notes that the loading of an LLM at the start has ended, with or without success."""
        self._preloading.discard(name)
        self._changed()

    async def stop(self) -> None:
        """Answers NOT_SERVING for all but `liveness` from now on, and waits a moment until the watchers are told."""
        self._is_stopping = True
        self._all_told.clear()
        self._update()
        if self._watchers:
            with contextlib.suppress(TimeoutError):  # of one that reads nothing
                await asyncio.wait_for(self._all_told.wait(), _TELLING_TIMEOUT)

    def _forget(self, watcher: asyncio.Task[Any] | None) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            self._all_told.set()

    def _changed(self) -> None:
        if not self._is_stopping:
            self._loop.call_soon_threadsafe(self._update)

    def _update(self) -> None:
        """Reads all states and tells the watchers."""
        statuses = {"liveness": _SERVING}
        for info in self._registry.list():
            if info.state is LlmState.READY:
                self._preloading.discard(info.name)
            is_idle = info.state is LlmState.UNLOADED and info.name not in self._preloading
            is_ready = info.state is LlmState.READY and self._registry[info.name].is_responsive
            status = _SERVING if (is_idle or is_ready) and not self._is_stopping else _NOT_SERVING
            statuses[f"llm/{info.name}"] = status
            if info.is_default:
                statuses[""] = status
        self._statuses = statuses
        self._change.set()
        self._change = asyncio.Event()
