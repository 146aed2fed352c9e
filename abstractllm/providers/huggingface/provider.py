"""Local models: the provider that keeps a model in an engine process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, ClassVar, cast

from abstractllm.config import LLMConfig
from abstractllm.enums import FinishReason, LlmState
from abstractllm.errors import AbstractLLMError, GenerationCancelledError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.convert import as_conversation, as_event
from abstractllm.providers.huggingface.engine import Engine, LoadProgress
from abstractllm.providers.huggingface.model_cache import ModelCache
from abstractllm.providers.huggingface.tickets import Ticket
from abstractllm.providers.huggingface.worker.protocol import (
    Begun,
    Counted,
    Delta,
    Done,
    Load,
    Sampling,
)
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Capabilities,
    Event,
    Finished,
    Timing,
    ToolCall,
    ToolResult,
    Usage,
)

__all__ = ["HuggingFaceProvider"]

_PARAMETERS = Sampling.__struct_fields__
_EFFORT = "reasoning_effort"


class HuggingFaceProvider(ModelCache):
    """A causal language model from a directory or the Hugging Face hub, run on this machine.

    The model is loaded by `load` or by the first request, in a process of its own; this process imports no torch. The
    default model, `demo`, comes with the package.

    What a request leaves unset comes from the model's own `generation_config`. Where that is silent too the answer is
    greedy, unless `top_p`, `top_k` or `min_p` is given: then the temperature is 1. Without `max_tokens` the answer may
    fill the context window. `usage.output_tokens` counts every generated token, the end token included. The same seed
    gives the same text where the arithmetic is the same: in float32 on one kind of CPU.

    A prompt of a model without a chat template is its messages joined by empty lines. Text of a caller never becomes a
    special token. What a message's reasoning was is given to templates that ask for it.

    Args:
        config: The keys of `HuggingFaceConfig`.
    """

    provider: ClassVar[str] = "huggingface"
    config_type: ClassVar[type[LLMConfig]] = HuggingFaceConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._engines: list[Engine] = []
        self._closed = False
        # An LLM that is dropped without `close` must not leave a loaded model behind.
        weakref.finalize(self, _abandon, self._engines)

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        """Answers a request; see `AbstractLLMInterface.events`.

        Raises:
            ContextLengthExceededError: If prompt, or prompt and `max_tokens`, do not fit the context window.
            OverloadedError: If `max_queue` requests or `max_queue_bytes` wait already.
            EngineCrashedError: If the engine process ended meanwhile; it is started again by itself.
            ModelLoadError: If the model cannot be loaded; ModelNotFoundError if it is nowhere.
        """
        chosen = request.parameters.set_fields()
        engine = self._engine(config)
        arrival = time.monotonic()
        sampling = Sampling(**{name: chosen[name] for name in _PARAMETERS if name in chosen})
        ticket = engine.submit(as_conversation(request), sampling, whole=request.whole, caller=request.caller)
        queued: float | None = None
        try:
            while True:
                match await ticket.next_answer():
                    case Begun():
                        queued = time.monotonic() - arrival
                    case Delta() as delta:
                        yield as_event(delta)
                    case Done(finish_reason="cancelled"):
                        raise GenerationCancelledError("the request was cancelled")
                    case Done() as done:
                        yield Finished(
                            FinishReason(done.finish_reason),
                            done.stop_sequence,
                            Usage(
                                input_tokens=done.input_tokens,
                                output_tokens=done.output_tokens,
                                reasoning_tokens=done.reasoning_tokens,
                            ),
                            timing=Timing(queued, (queued or 0.0) + (done.first_token or 0.0)),
                        )
                        return
                    case AbstractLLMError() as error:
                        raise error
        finally:
            self._leave(engine, ticket)

    async def check(self, request: GenerationRequest, config: LLMConfig) -> tuple[GenerationRequest, tuple[str, ...]]:
        """As every LLM's; loads the model first where its chat template decides whether it takes the request.

        Raises:
            ModelLoadError: If the model cannot be loaded; ModelNotFoundError if it is nowhere.
        """
        parts = (part for message in request.messages for part in message.parts)
        has_tools = bool(request.tools) or any(isinstance(part, ToolCall | ToolResult) for part in parts)
        if has_tools or request.parameters.reasoning_effort is not None:
            async with aclosing(self._engine(config).progress()) as steps:
                async for _ in steps:
                    pass
        return await super().check(request, config)

    async def count(self, request: GenerationRequest, config: LLMConfig) -> int:
        """Counts prompt tokens, chat template and special tokens included; loads the model if need be."""
        engine = self._engine(config)
        ticket = engine.submit(as_conversation(request), None, caller=request.caller)
        try:
            match await ticket.next_answer():
                case Counted(tokens=tokens):
                    return tokens
                case AbstractLLMError() as error:
                    raise error
                case other:
                    raise AssertionError(f"the engine answered a count with {other!r}")
        finally:
            self._leave(engine, ticket)

    async def capabilities(self, config: LLMConfig, model: str) -> Capabilities:
        """What the model can do.

        While it is not loaded, what only its chat template tells (tools, reasoning effort) counts as possible, and what
        only the model tells (window, device, ...) is unset.
        """
        known = Capabilities(
            tools=True,
            logprobs=True,
            seed=True,
            token_counting=True,
            parameters=(*_PARAMETERS, _EFFORT),
        )
        engine = self._find(config)
        if engine is None or engine.loaded is None:
            return known
        return dataclasses.replace(
            known,
            tools=engine.loaded.tools,
            parameters=known.parameters if engine.loaded.effort else _PARAMETERS,
            system_prompt=engine.loaded.system_prompt,
            context_window=engine.loaded.context_window,
            quantization=engine.loaded.quantization,
            device=engine.loaded.device,
            max_concurrent_requests=engine.loaded.slots,
        )

    # Life.

    async def load(self) -> None:
        """Loads the model, if it is not loaded.

        Raises:
            ModelNotFoundError: If the directory, the cache or the hub has no such model.
            ModelLoadError: If it cannot be loaded.
            ConfigurationError: If a package is missing.
        """
        async for _ in self.load_progress():
            pass

    def load_progress(self) -> AsyncGenerator[LoadProgress, None]:
        """Loads the model, if it is not loaded, and follows it; the last progress has the state READY.

        Leaving the generator does not stop the load. Errors are those of `load`.
        """
        return self._engine(self.config).progress()

    def reconfigured(self, before: LLMConfig, after: LLMConfig) -> None:
        """Lets the engine of the old settings finish what it has, if the model or how it is loaded has changed."""
        changed = _own(after)
        with self._lock:
            for engine in self._engines:
                if engine.settings == changed.load_settings():
                    engine.max_queue, engine.max_queue_bytes = changed.max_queue, changed.max_queue_bytes
                    engine.keep_alive = changed.keep_alive
        self._sweep()
        self._changed()

    async def close_async(self) -> None:
        """Ends the engine process; running requests end with a ServerShuttingDownError."""
        self._closed = True
        self._end_pulls()
        with self._lock:
            engines = self._engines.copy()
            self._engines.clear()
        await asyncio.to_thread(_close, engines)

    @property
    def state(self) -> tuple[LlmState, str]:
        """Whether the model is loaded, and why not."""
        engine = self._find(self.config)
        return engine.state if engine else (LlmState.UNLOADED, "")

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return sum(engine.queued for engine in tuple(self._engines))

    @property
    def device(self) -> str:
        """Where the model is: `cpu`, `cuda:0`; empty while it is not loaded."""
        engine = self._find(self.config)
        return engine.loaded.device if engine and engine.loaded else ""

    @property
    def memory_bytes(self) -> int | None:
        """What the model's weights take; None while it is not loaded."""
        engine = self._find(self.config)
        return engine.loaded.memory_bytes if engine and engine.loaded else None

    @property
    def engine_pid(self) -> int | None:
        """The id of the engine process, while there is one."""
        engine = self._find(self.config)
        return engine.pid if engine else None

    def _kept_models(self) -> list[Load]:
        return [
            engine.settings for engine in tuple(self._engines) if engine.state[0] in (LlmState.LOADING, LlmState.READY)
        ]

    # Engines: one, and after a change of settings the old one until its requests are answered.

    def _find(self, config: LLMConfig) -> Engine | None:
        settings = _own(config).load_settings()
        return next((engine for engine in tuple(self._engines) if engine.settings == settings), None)

    def _engine(self, config: LLMConfig) -> Engine:
        config = _own(config)
        settings = config.load_settings()
        with self._lock:
            for engine in self._engines:
                if engine.settings == settings:
                    return engine
            engine = Engine(
                settings,
                name=config.model,
                max_queue=config.max_queue,
                max_queue_bytes=config.max_queue_bytes,
                keep_alive=config.keep_alive,
                on_change=_weak(self._changed),
            )
            if self._closed:
                engine.close()
            else:
                self._engines.append(engine)
            return engine

    def _leave(self, engine: Engine, ticket: Ticket) -> None:
        engine.cancel(ticket)
        if len(self._engines) > 1:
            self._sweep()

    def _sweep(self) -> None:
        """Closes the engines of former settings that have nothing left to do."""
        settings = _own(self.config).load_settings()
        with self._lock:
            done = [engine for engine in self._engines if engine.settings != settings and engine.is_idle]
            for engine in done:
                self._engines.remove(engine)
        for engine in done:
            engine.close(wait=False)


def _own(config: LLMConfig) -> HuggingFaceConfig:
    return cast(HuggingFaceConfig, config)


def _abandon(engines: list[Engine]) -> None:
    for engine in engines:
        engine.close(wait=False)


def _close(engines: list[Engine]) -> None:
    _abandon(engines)
    for engine in engines:
        engine.close()


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """The method, as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (found := reference()) is not None:
            found()

    return call
