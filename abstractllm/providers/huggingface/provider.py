"""The provider of local models, each of which runs in a separate engine process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from abstractllm._core import sync_bridge
from abstractllm._core.admission.waiting_room import WaitingRoom
from abstractllm._core.model_memory import ModelMemory
from abstractllm.config import ConfigValues
from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError, ModelInUseError, ServerShuttingDownError
from abstractllm.providers.huggingface.answer_events import answer_events
from abstractllm.providers.huggingface.cached_models import CachedModels
from abstractllm.providers.huggingface.capabilities import PARAMETERS, capabilities_of
from abstractllm.providers.huggingface.config import HuggingFaceConfig, without_replace
from abstractllm.providers.huggingface.convert import as_conversation, as_format
from abstractllm.providers.huggingface.engine.replacement import ModelReplacement
from abstractllm.providers.huggingface.engine.settings import EngineSettings
from abstractllm.providers.huggingface.protocol.messages import (
    CPU_BATCH_SIZE,
    GPU_BATCH_SIZE,
    Counted,
    Counters,
    Sampling,
)
from abstractllm.providers.huggingface.statistics import statistics_of, sum_of_counters
from abstractllm.requests import GenerationRequest
from abstractllm.statistics import EngineStatistics
from abstractllm.types import Capabilities, Event, LoadProgress, ToolCall, ToolResult, UnloadProgress

__all__ = ["HuggingFaceProvider"]


class HuggingFaceProvider(CachedModels):
    """A causal language model from a directory or the Hugging Face hub, run on this machine.

    The model is loaded by `load` or by the first request, in another process; this process imports no torch. The
    default model, `demo`, comes with the package.

    Parameters that a request leaves unset come from the model's `generation_config`. If they are unset there too, the
    answer is greedy, unless `top_p`, `top_k` or `min_p` is set: then the temperature is 1. Without `max_tokens` the
    answer may fill the context window. `usage.output_tokens` counts every generated token, the end token included. The
    same seed gives the same text where the arithmetic is the same: in float32 on one kind of CPU.

    For a model without a chat template the messages are joined by empty lines. Text of a caller never becomes a special
    token. The reasoning in earlier messages is passed to chat templates that use it.

    Args:
        config: The keys of `HuggingFaceConfig`.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._checking = WaitingRoom(self.config.admission_limits)
        """The requests that wait for the model to be loaded, before they can be checked."""

    async def events(self, request: GenerationRequest, config: HuggingFaceConfig) -> AsyncGenerator[Event, None]:
        """Answers a request; see `AbstractLLMInterface.events`.

        Raises:
            ContextLengthExceededError: If prompt, or prompt and `max_tokens`, do not fit the context window.
            InvalidRequestError: If the response format is malformed, or too complex.
            UnsupportedFeatureError: If there are tools beside a response format, or the tokenizer allows no formats.
            OverloadedError: If `max_queue` requests, or `max_queue_bytes` bytes, wait already, or the request cannot
                meet its deadline at the present rate.
            RateLimitedError: If the caller is beyond the limits that `callers` sets.
            EngineCrashedError: If the engine process ended meanwhile; it is started again automatically.
            ModelLoadError: If the model cannot be loaded; ModelNotFoundError if there is no such model.
        """
        chosen = request.parameters.set_fields()
        arrival = time.monotonic()
        sampling = Sampling(**{name: chosen[name] for name in PARAMETERS if name in chosen})
        engine, pending = self._pool.submit(
            config.engine_settings(chosen["model"]),
            as_conversation(request),
            sampling,
            format=as_format(request),
            whole=request.whole,
            caller=request.caller,
            deadline=request.deadline,
        )
        try:
            async with aclosing(answer_events(pending, request.record, arrival)) as events:
                async for event in events:
                    yield event
        finally:
            engine.cancel(pending)

    async def check(
        self, request: GenerationRequest, config: HuggingFaceConfig
    ) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Refuses, or drops, what the LLM cannot honour; first loads the model if its chat template decides about it.

        Raises:
            ModelLoadError: If the model cannot be loaded; ModelNotFoundError if there is no such model.
        """
        parts = (part for message in request.messages for part in message.parts)
        has_tools = bool(request.tools) or any(isinstance(part, ToolCall | ToolResult) for part in parts)
        if has_tools or request.parameters.reasoning_effort is not None:
            settings = config.engine_settings(request.parameters.model or "")
            engine = self._pool.find(settings.load_settings)
            if engine is None or engine.loaded is None:
                await self._checking.during(request, self._load_model(settings))
        return await super().check(request, config)

    async def _load_model(self, settings: EngineSettings) -> None:
        async with aclosing(self._pool.progress(settings)) as steps:
            async for _ in steps:
                pass

    async def count(self, request: GenerationRequest, config: HuggingFaceConfig) -> int:
        """Counts prompt tokens, chat template and special tokens included; loads the model if need be."""
        model = request.parameters.model or ""
        settings = config.engine_settings(model)
        engine, pending = self._pool.submit(settings, as_conversation(request), None, caller=request.caller)
        try:
            match await pending.next_answer():
                case Counted(tokens=tokens):
                    return tokens
                case AbstractLLMError() as error:
                    raise error
                case other:
                    raise AssertionError(f"the engine answered a count with {other!r}")
        finally:
            engine.cancel(pending)

    async def capabilities(self, config: HuggingFaceConfig, model: str) -> Capabilities:
        """Returns what the model can do.

        While it is not loaded, what depends on its chat template or tokenizer (tools, reasoning effort, formats) counts
        as possible, and what depends on the model (window, device, ...) is unset.
        """
        engine = self._pool.find(config.load_settings(model))
        return capabilities_of(engine.loaded if engine else None)

    # Configuration.

    async def preview(self, changes: Mapping[Any, Any]) -> HuggingFaceConfig:
        """Returns the configuration that `set_config` would give, without `replace` among the provider options."""
        changes, replace = without_replace(changes)
        after = self.config.changed(changes)
        replacement = self._replacement(self.config, after)
        if replacement.is_needed and not replace and (obstacle := await replacement.obstacle()):
            raise obstacle
        return after

    def set_config(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration; see `set_config_async`."""
        return sync_bridge.call(lambda: self.set_config_async(config, **changes))

    async def set_config_async(self, config: Mapping[Any, Any] | None = None, **changes: Any) -> ConfigValues:
        """Merges changes into the configuration; requests that run already keep theirs.

        If the model, or how it is loaded, changes while it is loaded, the new one is loaded first and the old one
        answers meanwhile; then it is unloaded as soon as it has answered what it has. A model that is not loaded is
        loaded by its first request. If the new one cannot be loaded, or the caller leaves, nothing is changed.

        If both do not fit into memory, `provider_options={"replace": True}` has the old one unloaded first: the change
        is in force at once, and requests wait until the old one has answered what it has, and the new one is loaded. If
        that fails the change is taken back, and the next request loads the old one again. `replace` is not stored.

        Raises:
            ConfigurationError: If a key is unknown or its value malformed.
            ModelInUseError: If both models do not fit into memory.
            ModelLoadError: If the new one cannot be loaded; ModelNotFoundError if there is no such model.
        """
        changes, replace = without_replace({**(config or {}), **changes})
        async with self.prepared_for(self.config.changed(changes), replace=replace):
            return super().set_config(changes)

    @asynccontextmanager
    async def prepared_for(self, config: HuggingFaceConfig, *, replace: bool) -> AsyncIterator[None]:
        """Loads the model that is to replace a loaded one; see `set_config_async`.

        Raises:
            ModelInUseError: If both do not fit into memory, and `replace` is not set.
            ModelLoadError: If the new one cannot be loaded; ModelNotFoundError if there is no such model.
        """
        before = self.config
        replacement = self._replacement(before, config)
        with self._named():
            if not replacement.is_needed:
                yield
            elif not (obstacle := await replacement.obstacle()):
                async with replacement.loaded_beside():
                    yield
            elif not replace:
                raise obstacle
            else:
                self.adopt(config)
                try:
                    await replacement.load_after()
                    yield
                except BaseException:
                    self.adopt(before)
                    raise

    def reconfigured(self, before: HuggingFaceConfig, after: HuggingFaceConfig) -> None:
        """Retires the engines of models that are not the LLM's any more, and gives the others their new limits."""
        listed = [after.load_settings(model) for model in after.models]
        self._checking.configure(after.admission_limits)
        self._pool.reconfigure(before.engine_settings(), after.engine_settings(), listed)
        self._changed()

    # Loading and unloading.

    def share(self, memory: ModelMemory) -> None:
        """Gets memory that several LLMs share; a model that is loaded counts from its next load."""
        self._pool.share(memory)

    async def load(self) -> None:
        """Loads the model, if it is not loaded.

        Raises:
            ModelNotFoundError: If the directory, the cache or the hub has no such model.
            ModelLoadError: If it cannot be loaded.
            GenerationCancelledError: If it is unloaded meanwhile.
            ConfigurationError: If a package is missing.
        """
        async for _ in self.load_progress():
            pass

    async def load_progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Loads the model, if it is not loaded, and reports the progress; the last report has the state READY.

        Leaving the generator does not stop the load. Errors are those of `load`.
        """
        config = self.config
        with self._named():
            async with aclosing(self._pool.progress(config.engine_settings())) as steps:
                async for step in steps:
                    yield step

    async def unload(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """Unloads the LLM's models, those that are being loaded included; see `AbstractLLMInterface.unload`."""
        engines = self._pool.engines
        state = self.state[0]
        # Some requests have not come to an engine yet; of others, which were given up, an engine is not rid yet.
        running = max(self.running, sum(engine.requests for engine in engines))
        with self._named():
            if running and not force:
                raise ModelInUseError(
                    f"LLM {self.name}: {running} requests run or wait; end them, or force it", requested=running
                )
            unloads = [engine.unload(force=force) for engine in engines]
        yield UnloadProgress(state, running)
        for unload in unloads:
            await asyncio.wrap_future(unload)
        yield UnloadProgress(LlmState.UNLOADED, 0)

    async def close_async(self) -> None:
        """Ends the engine processes; running requests end with a ServerShuttingDownError."""
        self._cache.end_pulls(ServerShuttingDownError(f"LLM {self.name} was closed"))
        await asyncio.to_thread(self._pool.close)

    @property
    def state(self) -> tuple[LlmState, str]:
        """The state of the configured model, and the reason where it is not loaded."""
        engine = self._pool.find(self.config.load_settings())
        return engine.state if engine else (LlmState.UNLOADED, "")

    @property
    def is_responsive(self) -> bool:
        """False while the configured model's process gives no sign of life."""
        engine = self._pool.find(self.config.load_settings())
        return engine is None or engine.is_responsive

    @property
    def silence(self) -> float:
        """Seconds since one of its processes last gave a sign of life: the most silent one."""
        return max((engine.silence for engine in self._pool.engines), default=0.0)

    @property
    def queued(self) -> int:
        """Requests that wait for their turn, or for the model to be loaded."""
        return self._checking.waiting + sum(engine.queued for engine in self._pool.engines)

    @property
    def queued_bytes(self) -> int:
        """Bytes that these hold."""
        return self._checking.waiting_bytes + sum(engine.queued_bytes for engine in self._pool.engines)

    @property
    def capacity(self) -> int:
        """Requests that the configured model runs, and lets wait, at most."""
        return self.config.max_queue + (self.config.max_batch_size or GPU_BATCH_SIZE)

    @property
    def max_running(self) -> int:
        """Requests of the configured model that its process answers at a time at most."""
        if self.config.max_batch_size is not None:
            return self.config.max_batch_size
        return CPU_BATCH_SIZE if self.device in ("", "cpu") else GPU_BATCH_SIZE

    @property
    def device(self) -> str:
        """The device of the configured model: `cpu`, `cuda:0`; empty while it is not loaded."""
        engine = self._pool.find(self.config.load_settings())
        return loaded.device if engine and (loaded := engine.loaded) else ""

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of the loaded models, weights and caches of keys and values; None while none is loaded."""
        models = [model for engine in self._pool.engines if (model := engine.loaded) is not None]
        return sum(model.memory_bytes + model.cache_bytes for model in models) or None

    @property
    def counters(self) -> Counters:
        """The sums of its engines' counters: for tests and metrics."""
        return sum_of_counters(self._pool)

    @property
    def engine_statistics(self) -> EngineStatistics:
        """The work of all its engines, and the memory of those that are loaded."""
        return statistics_of(self._pool)

    @property
    def engine_pid(self) -> int | None:
        """The id of the configured model's engine process, while there is one."""
        engine = self._pool.find(self.config.load_settings())
        return engine.pid if engine else None

    def _replacement(self, before: HuggingFaceConfig, after: HuggingFaceConfig) -> ModelReplacement:
        return ModelReplacement(self._pool, before.engine_settings(), after.engine_settings())
