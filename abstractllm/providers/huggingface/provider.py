"""The provider of local models, each of which runs in a separate engine process."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from abstractllm._core import execution, sync_bridge
from abstractllm._core.admission.gate import Passage
from abstractllm._core.admission.waiting_room import WaitingRoom
from abstractllm._core.model_memory import ModelMemory
from abstractllm.config import ConfigValues
from abstractllm.enums import LlmState
from abstractllm.errors import (
    AbstractLLMError,
    GenerationCancelledError,
    ModelInUseError,
    ModelNotFoundError,
    ServerShuttingDownError,
)
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface.config import DEFAULT_CACHE_DIR, HuggingFaceConfig, without_replace
from abstractllm.providers.huggingface.convert import (
    RAW_OPTION,
    as_conversation,
    as_event,
    as_finished,
    as_format,
    is_piece,
)
from abstractllm.providers.huggingface.engine.pool import EnginePool
from abstractllm.providers.huggingface.engine.replacement import ModelReplacement
from abstractllm.providers.huggingface.engine.settings import EngineSettings
from abstractllm.providers.huggingface.hub.cache import cache_size
from abstractllm.providers.huggingface.hub.model_cache import ModelCache, clear_models, list_models
from abstractllm.providers.huggingface.protocol.messages import (
    GPU_BATCH_SIZE,
    Begun,
    Counted,
    Counters,
    Delta,
    Done,
    Load,
    Sampling,
)
from abstractllm.requests import GenerationRequest
from abstractllm.statistics import EngineStatistics
from abstractllm.types import (
    CachedModel,
    Capabilities,
    ClearedModels,
    Event,
    LoadProgress,
    PullProgress,
    ToolCall,
    ToolResult,
    UnloadProgress,
)

__all__ = ["HuggingFaceProvider"]

_PARAMETERS = Sampling.__struct_fields__
_EFFORT = "reasoning_effort"


class HuggingFaceProvider(AbstractLLMInterface[HuggingFaceConfig]):
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

    provider = "huggingface"
    config_type = HuggingFaceConfig
    DEFAULT_CACHE_DIR = DEFAULT_CACHE_DIR
    """The folder of the model cache where the configuration names none."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._pool = EnginePool(self._changed)
        self._cache = ModelCache(self)
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
        sampling = Sampling(**{name: chosen[name] for name in _PARAMETERS if name in chosen})
        engine, pending = self._pool.submit(
            config.engine_settings(chosen["model"]),
            as_conversation(request),
            sampling,
            format=as_format(request),
            whole=request.whole,
            caller=request.caller,
            deadline=request.deadline,
        )
        record = request.record
        begun_at: float | None = None
        is_done = False
        try:
            while True:
                match await pending.next_answer():
                    case Begun() as begun:
                        begun_at = time.monotonic()
                        record.queued = begun_at - arrival
                        record.input_tokens, record.cached_input_tokens = begun.input_tokens, begun.cached_tokens
                    case Delta() as delta:
                        if record.first_token_at is None:
                            record.first_token_at = time.monotonic()
                        record.output_tokens = delta.output_tokens
                        if is_piece(delta):
                            yield as_event(delta)
                    case Done(finish_reason="cancelled"):
                        raise GenerationCancelledError("the request was cancelled")
                    case Done() as done:
                        is_done, total = True, time.monotonic() - arrival
                        record.prefill, record.decode = done.until_first_token, done.since_first_token
                        if record.prefill is not None and record.decode is not None:
                            # More exact than the time at which the turn was told, which is at the end of a step.
                            record.queued = max(0.0, total - record.prefill - record.decode)
                        yield as_finished(done, record.queued, total)
                        return
                    case AbstractLLMError() as error:
                        raise error
        finally:
            engine.cancel(pending)
            if begun_at is None and not is_done:
                record.queued = time.monotonic() - arrival
            elif not is_done and begun_at is not None and record.first_token_at is not None:
                # It ended early: what is known of it is when its messages came.
                record.prefill = record.first_token_at - begun_at
                record.decode = time.monotonic() - record.first_token_at
                record.output_tokens = pending.output_tokens

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
                await self._checking.during(Passage.of(request), self._load_model(settings))
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
        known = Capabilities(
            tools=True,
            json_object=True,
            json_schema=True,
            regex=True,
            grammar=True,
            logprobs=True,
            seed=True,
            token_counting=True,
            parameters=(*_PARAMETERS, _EFFORT),
            provider_options=(RAW_OPTION,),
        )
        engine = self._pool.find(config.load_settings(model))
        if engine is None or engine.loaded is None:
            return known
        return dataclasses.replace(
            known,
            tools=engine.loaded.tools,
            json_object=engine.loaded.formats,
            json_schema=engine.loaded.formats,
            regex=engine.loaded.formats,
            grammar=engine.loaded.formats,
            parameters=known.parameters if engine.loaded.effort else _PARAMETERS,
            system_prompt=engine.loaded.system_prompt,
            chat=engine.loaded.chat,
            context_window=engine.loaded.context_window,
            quantization=engine.loaded.quantization,
            device=engine.loaded.device,
            max_concurrent_requests=engine.loaded.slots,
        )

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

    # The model cache.

    async def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads the model's files into `cache_dir`, as far as they are not there; see `AbstractLLMInterface.pull`.

        All who want the same at the same time share one download. Of the files only those are fetched that loading the
        model takes. There is nothing to do for a directory, nor for the demo model.

        Raises:
            ModelNotFoundError: If `model` is not listed, if the hub has no such model, or if the hub must not be asked
                and the model is not whole in the cache.
            ProviderCredentialsError: If the hub asks for a token that may read it.
            ProviderUnavailableError: If the hub cannot be reached, or the disk is full.
            RateLimitedError: If the hub asks to slow down.
            ServerShuttingDownError: If the LLM is closed meanwhile.
        """
        config = self.config
        chosen = execution.choose_model(self, config, model, "model")
        with self._named(chosen):
            async with aclosing(self._cache.pull(config.load_settings(chosen))) as reports:
                async for report in reports:
                    yield report

    async def cached_models(self) -> list[CachedModel]:
        """Returns the models in `cache_dir`, sorted by name."""
        return await asyncio.to_thread(list_models, _expanded(self.config.cache_dir))

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them if `model` is None, from `cache_dir`.

        Returns:
            The names of what was (or, in a dry run, would be) deleted, and the bytes that it frees.

        Raises:
            ModelNotFoundError: If the cache holds no such model.
            ModelInUseError: If one of them is loaded or being downloaded, by this process or another one; nothing is
                deleted then.
        """
        return await asyncio.to_thread(clear_models, _expanded(self.config.cache_dir), model, dry_run=dry_run)

    @staticmethod
    def list_cached_models(cache_dir: str | None = None) -> list[CachedModel]:
        """Returns the models in the local cache, sorted by name; an empty list if there is no cache.

        Args:
            cache_dir: `DEFAULT_CACHE_DIR` if absent.
        """
        return list_models(_expanded(cache_dir))

    @staticmethod
    def clear_model_cache(model_name: str | None = None, cache_dir: str | None = None) -> ClearedModels:
        """Deletes one model from the local cache, or all of them; there is nothing to do for one that is not there.

        Args:
            model_name: A name that `list_cached_models` gives; all models if absent.
            cache_dir: `DEFAULT_CACHE_DIR` if absent.

        Raises:
            ModelInUseError: If one of them is loaded or being downloaded, by this process or another one; nothing is
                deleted then.
        """
        try:
            removed, freed = clear_models(_expanded(cache_dir), model_name)
        except ModelNotFoundError:
            return ClearedModels((), 0)
        return ClearedModels(tuple(removed), freed)

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

    @contextmanager
    def _named(self, model: str = "") -> Iterator[None]:
        """Names the LLM in errors, and the model: the configured one if none is given."""
        try:
            yield
        except AbstractLLMError as error:
            error.fill(provider=self.provider, llm=self.name, model=model or self.config.model)
            raise

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
        all_counters = [asdict(engine.counters) for engine in self._pool.engines]
        return Counters(**{name: sum(each[name] for each in all_counters) for name in Counters.__struct_fields__})

    @property
    def engine_statistics(self) -> EngineStatistics:
        """The work of all its engines, and the memory of those that are loaded."""
        engines, history, counters = self._pool.engines, self._pool.history, self.counters
        models = [model for engine in engines if (model := engine.loaded) is not None]
        work = history.work
        return EngineStatistics(
            weights_bytes=sum(model.memory_bytes for model in models),
            kv_cache_bytes=sum(model.cache_bytes for model in models),
            kv_cache_usage=min(1.0, counters.blocks_in_use / counters.blocks) if counters.blocks else 0.0,
            batch_size=counters.batch_size if counters.active else 0,
            steps=int(work["steps"]),
            step_seconds=work["step_seconds"],
            prompt_tokens=int(work["prompt_tokens"]),
            cached_prompt_tokens=int(work["cached_tokens"]),
            generated_tokens=int(work["generated_tokens"]),
            evictions=int(work["evictions"]),
            loads=history.loads,
            failed_loads=history.failed_loads,
            load_seconds=history.load_seconds,
            restarts={"crashed": 0, "frozen": 0} | history.restarts,
        )

    @property
    def model_cache_bytes(self) -> Mapping[str, int]:
        """The bytes of its model cache, by the cache's folder."""
        folder = _expanded(self.config.cache_dir)
        return {folder: cache_size(folder)}

    @property
    def engine_pid(self) -> int | None:
        """The id of the configured model's engine process, while there is one."""
        engine = self._pool.find(self.config.load_settings())
        return engine.pid if engine else None

    @property
    def models_in_use(self) -> list[Load]:
        """The models that are loaded, or are being loaded."""
        return self._pool.models_in_use

    def _replacement(self, before: HuggingFaceConfig, after: HuggingFaceConfig) -> ModelReplacement:
        return ModelReplacement(self._pool, before.engine_settings(), after.engine_settings())


def _expanded(cache_dir: str | None) -> str:
    return str(Path(cache_dir or DEFAULT_CACHE_DIR).expanduser())
