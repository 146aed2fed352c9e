"""The engines of one LLM: one for each of its models, and former ones until their requests are answered."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from abstractllm._core.model_memory import ModelMemory
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.engine.handle import Engine
from abstractllm.providers.huggingface.engine.pending_request import PendingRequest
from abstractllm.providers.huggingface.engine.supervisor import EngineClosedError
from abstractllm.types import LoadProgress

__all__ = ["EnginePool"]


class EnginePool:
    """Finds, makes and closes engines, from any thread.

    A pool that is dropped without `close` leaves no loaded model behind.

    Args:
        on_change: A bound method that is called, from any thread, when the state of an engine has changed; its object
            is not kept alive.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = _weak(on_change)
        self._lock = threading.Lock()
        self._engines: list[Engine] = []
        self._memory = ModelMemory()
        self._closed = False
        weakref.finalize(self, _abandon, self._engines)

    @property
    def memory(self) -> ModelMemory:
        """Where the engines get their memory."""
        return self._memory

    def share(self, memory: ModelMemory) -> None:
        """Lets engines get their memory from another one, from their next start on."""
        with self._lock:
            self._memory = memory
            for engine in self._engines:
                engine.memory = memory

    @property
    def engines(self) -> list[Engine]:
        """Those that have a process, or may get one."""
        return [engine for engine in tuple(self._engines) if not (engine.is_closed and engine.has_ended)]

    def find(self, config: HuggingFaceConfig, model: str = "") -> Engine | None:
        """The engine of a model, the configured one if none is named; None if there is none yet."""
        settings = config.load_settings(model)
        return next((engine for engine in self.engines if engine.settings == settings and not engine.is_closed), None)

    def get(self, config: HuggingFaceConfig, model: str = "") -> Engine:
        """The engine of a model, the configured one if none is named.

        Raises:
            EngineClosedError: If the pool was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError(f"model {model or config.model} is closed")
            if (engine := self.find(config, model)) is None:
                engine = self.make(config, model)
                self._engines[:] = [*self.engines, engine]
            return engine

    def make(self, config: HuggingFaceConfig, model: str = "") -> Engine:
        """An engine that is not in the pool."""
        engine = Engine(
            config.load_settings(model),
            name=model or config.model,
            memory=self._memory,
            on_change=self._on_change,
        )
        _configure(engine, config)
        return engine

    def submit(
        self, config: HuggingFaceConfig, model: str, *arguments: Any, **options: Any
    ) -> tuple[Engine, PendingRequest]:
        """Gives a request to the engine of a model; see `Engine.submit`."""
        while True:
            engine = self.get(config, model)
            try:
                return engine, engine.submit(*arguments, **options)
            except EngineClosedError:
                # A former one that closed itself just now; the next one is new.
                continue

    async def progress(self, config: HuggingFaceConfig, model: str = "") -> AsyncGenerator[LoadProgress, None]:
        """Loads a model and follows it; see `Engine.progress`."""
        while True:
            engine = self.get(config, model)
            try:
                async with aclosing(engine.progress()) as steps:
                    async for step in steps:
                        yield step
            except EngineClosedError:
                continue  # as in `submit`
            return

    def follow(self, before: HuggingFaceConfig, after: HuggingFaceConfig) -> None:
        """Gives engines new limits; those of models that are not the LLM's any more answer what they have, and close.

        A model that is replaced is unloaded, although it may be listed and be loaded again by a request that names it.
        """
        chosen, replaced = after.load_settings(), before.load_settings()
        listed = [after.load_settings(model) for model in after.models]
        for engine in self.engines:
            if engine.settings == chosen:
                engine.keep()
            elif engine.settings == replaced or engine.settings not in listed:
                engine.retire()
            _configure(engine, after)

    def close(self) -> None:
        """Ends all processes and waits for their end; requests in them fail."""
        with self._lock:
            self._closed = True
            engines = self._engines.copy()
        _abandon(engines)
        for engine in engines:
            engine.close()


def _configure(engine: Engine, config: HuggingFaceConfig) -> None:
    engine.configure(max_queue=config.max_queue, max_queue_bytes=config.max_queue_bytes, keep_alive=config.keep_alive)


def _abandon(engines: list[Engine]) -> None:
    for engine in engines:
        engine.close(wait=False)


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """The method, as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (found := reference()) is not None:
            found()

    return call
