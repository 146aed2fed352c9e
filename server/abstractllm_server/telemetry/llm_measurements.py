"""The measurements of LLMs: the requests that they have, their memory, and what their engines have done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

from abstractllm.enums import LlmState
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm.statistics import EngineStatistics, ReplicaStatistics
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["LlmMeasurements"]

logger = logging.getLogger("abstractllm.server")

_LOOKUP_PATIENCE = 0.5
"""Seconds that a scrape waits for the sizes of model caches; else it tells those of the last time."""
_CACHE_SECONDS = 60.0
"""The interval in which the sizes of model caches are looked up: it means to walk through their folders."""


class LlmMeasurements:
    """Reads the LLMs of a registry, whenever it is called.

    Args:
        registry: The LLMs.
    """

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry
        self._faulty: set[str] = set()
        """The names of the LLMs whose latest measurements failed."""
        self._cache_bytes: int | None = None
        self._lookup: threading.Thread | None = None
        self._next_lookup = 0.0

    def __call__(self) -> Iterator[Measurement]:
        """Yields the measurements of each LLM, and those of all together."""
        for llm in tuple(self._registry):
            try:
                measurements = tuple(_of_llm(llm))
            except Exception:  # another package's provider may fail here, and is not to take the others along
                if llm.name not in self._faulty:
                    self._faulty.add(llm.name)
                    logger.exception("the metrics of LLM %s cannot be read", llm.name)
            else:
                self._faulty.discard(llm.name)
                yield from measurements
        if (size := self._model_cache_bytes()) is not None:
            yield Measurement("abstractllm.model_cache.size", size)

    def _model_cache_bytes(self) -> int | None:
        """Returns the sizes of all model caches together, as of the last time that they were looked up."""
        if self._lookup is None and time.monotonic() >= self._next_lookup:
            # A disk that hangs, as one over a network may, must not hold up the other metrics.
            lookup = self._lookup = threading.Thread(target=self._look_up, name="model cache size", daemon=True)
            lookup.start()
            lookup.join(_LOOKUP_PATIENCE)
        return self._cache_bytes

    def _look_up(self) -> None:
        try:
            # LLMs may share a folder.
            sizes = {folder: size for llm in tuple(self._registry) for folder, size in llm.model_cache_bytes.items()}
            self._cache_bytes = sum(sizes.values())
        finally:
            self._next_lookup = time.monotonic() + _CACHE_SECONDS
            self._lookup = None


def _of_llm(llm: AbstractLLMInterface) -> Iterator[Measurement]:
    name = {"abstractllm.llm": llm.name}
    can_answer = llm.state[0] in (LlmState.READY, LlmState.UNLOADED) and llm.is_responsive
    yield Measurement("abstractllm.llm.ready", int(can_answer), name | {"gen_ai.provider.name": llm.provider})
    waiting = llm.queued
    yield Measurement("abstractllm.llm.requests", max(0, llm.running - waiting), name | {"state": "running"})
    yield Measurement("abstractllm.llm.requests", waiting, name | {"state": "waiting"})
    yield Measurement("abstractllm.llm.waiting.size", llm.queued_bytes, name)
    if (statistics := llm.engine_statistics) is not None:
        yield from _of_engines(statistics, name)
    for replica in llm.replicas:
        yield from _of_replica(replica, name | {"abstractllm.replica": replica.name})


def _of_replica(replica: ReplicaStatistics, name: dict[str, str]) -> Iterator[Measurement]:
    can_answer = replica.state in (LlmState.READY, LlmState.UNLOADED) and replica.is_responsive
    yield Measurement("abstractllm.replica.ready", int(can_answer), name)
    yield Measurement("abstractllm.replica.requests", replica.running, name | {"state": "running"})
    yield Measurement("abstractllm.replica.requests", replica.queued, name | {"state": "waiting"})
    if replica.engine is not None:
        yield from _of_engines(replica.engine, name)


def _of_engines(statistics: EngineStatistics, name: dict[str, str]) -> Iterator[Measurement]:
    yield Measurement("abstractllm.engine.memory", statistics.weights_bytes, name | {"kind": "weights"})
    yield Measurement("abstractllm.engine.memory", statistics.kv_cache_bytes, name | {"kind": "kv_cache"})
    yield Measurement("abstractllm.engine.kv_cache.usage", statistics.kv_cache_usage, name)
    yield Measurement("abstractllm.engine.evictions", statistics.evictions, name)
    yield Measurement("abstractllm.engine.batch.size", statistics.batch_size, name)
    yield Measurement("abstractllm.engine.steps", statistics.steps, name)
    yield Measurement("abstractllm.engine.step.duration", statistics.step_seconds, name)
    yield Measurement("abstractllm.engine.prompt.tokens", statistics.prompt_tokens, name)
    yield Measurement("abstractllm.engine.prompt.cached_tokens", statistics.cached_prompt_tokens, name)
    yield Measurement("abstractllm.engine.generated.tokens", statistics.generated_tokens, name)
    yield Measurement("abstractllm.engine.loads", statistics.loads, name | {"outcome": "success"})
    yield Measurement("abstractllm.engine.loads", statistics.failed_loads, name | {"outcome": "failure"})
    yield Measurement("abstractllm.engine.load.duration", statistics.load_seconds, name)
    for reason, count in statistics.restarts.items():
        yield Measurement("abstractllm.engine.restarts", count, name | {"reason": reason})
