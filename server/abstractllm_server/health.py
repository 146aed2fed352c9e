"""grpc.health.v1: `liveness`, `""` (the default LLM can answer) and `llm/<name>`."""

from __future__ import annotations

import asyncio

from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

from abstractllm.enums import LlmState
from abstractllm.registry import LLMRegistry

__all__ = ["Health"]


class Health:
    """Keeps the health service's answers true to the LLMs' states.

    An LLM that is idle and unloaded counts as SERVING, since a request loads it; one that is loading, or failed to,
    does not. LLMs that are to be loaded at start do not count as SERVING before they have been.
    """

    def __init__(self, registry: LLMRegistry, awaited: set[str]) -> None:
        self.servicer = HealthServicer()
        self._registry = registry
        self._awaited = awaited
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._updates: set[asyncio.Task[None]] = set()
        for llm in registry:
            llm.on_change(self._changed)

    async def update(self) -> None:
        """Reads all states."""
        if self._stopping:
            return
        await self.servicer.set("liveness", HealthCheckResponse.SERVING)
        for info in self._registry.list():
            if info.state is LlmState.READY:
                self._awaited.discard(info.name)
            idle = info.state is LlmState.UNLOADED and info.name not in self._awaited
            serving = idle or info.state is LlmState.READY
            status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
            await self.servicer.set(f"llm/{info.name}", status)
            if info.is_default:
                await self.servicer.set("", status)

    async def stop(self) -> None:
        """Answers NOT_SERVING for everything from now on."""
        self._stopping = True
        await self.servicer.enter_graceful_shutdown()

    def _changed(self) -> None:
        self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        task = self._loop.create_task(self.update())
        self._updates.add(task)
        task.add_done_callback(self._updates.discard)
