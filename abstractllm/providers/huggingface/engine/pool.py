"""The engines of one LLM: one for each of its models, and former ones until their requests are answered."""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from abstractllm._core.admission.token_budgets import TokenBudgets
from abstractllm._core.model_memory import ModelMemory
from abstractllm.enums import LlmState
from abstractllm.providers.huggingface.engine.handle import Engine
from abstractllm.providers.huggingface.engine.history import History
from abstractllm.providers.huggingface.engine.pending_request import PendingRequest
from abstractllm.providers.huggingface.engine.settings import EngineSettings
from abstractllm.providers.huggingface.engine.supervisor import EngineClosedError
from abstractllm.providers.huggingface.protocol.messages import Conversation, Format, Load, Sampling
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
        self._past = History()
        """The work of engines that are not in the pool any more."""
        self._memory = ModelMemory()
        self._budgets = TokenBudgets()
        self._closed = False
        weakref.finalize(self, _abandon, self._engines)

    @property
    def memory(self) -> ModelMemory:
        """The memory that engines get a share of."""
        return self._memory

    def share(self, memory: ModelMemory) -> None:
        """Lets engines get their memory from another one, from their next start on."""
        with self._lock:
            self._memory = memory
            for engine in self._engines:
                engine.resident.memory = memory

    @property
    def engines(self) -> list[Engine]:
        """The engines that have a process, or may get one."""
        return [engine for engine in tuple(self._engines) if not (engine.is_closed and engine.is_down)]

    @property
    def models_in_use(self) -> list[Load]:
        """The models that are loaded, or are being loaded."""
        in_use = (LlmState.LOADING, LlmState.READY)
        return [engine.load_settings for engine in self.engines if engine.state[0] in in_use]

    def find(self, load_settings: Load) -> Engine | None:
        """Returns the engine of a model; None if there is none yet."""
        return next(
            (engine for engine in self.engines if engine.load_settings == load_settings and not engine.is_closed), None
        )

    def get(self, settings: EngineSettings) -> Engine:
        """Returns the engine of a model; makes it if there is none yet.

        Raises:
            EngineClosedError: If the pool was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError(f"model {settings.name} is closed")
            if (engine := self.find(settings.load_settings)) is None:
                engine = self.make(settings)
                self._drop_ended()
                self._engines.append(engine)
            return engine

    def _drop_ended(self) -> None:
        kept = self.engines
        for engine in self._engines:
            if engine not in kept:
                self._past.add(engine.history)
        self._engines[:] = kept

    @property
    def history(self) -> History:
        """The work of all engines that there have been."""
        with self._lock:
            history = History()
            history.add(self._past)
            for engine in self._engines:
                history.add(engine.history)
            return history

    def make(self, settings: EngineSettings) -> Engine:
        """Returns a new engine that is not in the pool."""
        return Engine(settings, memory=self._memory, budgets=self._budgets, on_change=self._on_change)

    def submit(
        self,
        settings: EngineSettings,
        conversation: Conversation,
        sampling: Sampling | None,
        *,
        format: Format | None = None,
        whole: bool = False,
        caller: str = "",
        deadline: float | None = None,
    ) -> tuple[Engine, PendingRequest]:
        """Gives a request to the engine of a model; see `Engine.submit`."""
        while True:
            engine = self.get(settings)
            try:
                return engine, engine.submit(
                    conversation, sampling, format=format, whole=whole, caller=caller, deadline=deadline
                )
            except EngineClosedError:
                # A retired one that closed itself just now; the next one is new.
                continue

    async def progress(self, settings: EngineSettings) -> AsyncGenerator[LoadProgress, None]:
        """Loads a model and follows it; see `Engine.progress`."""
        while True:
            engine = self.get(settings)
            try:
                async with aclosing(engine.progress()) as steps:
                    async for step in steps:
                        yield step
            except EngineClosedError:
                continue  # as in `submit`
            return

    def reconfigure(self, before: EngineSettings, after: EngineSettings, listed: Collection[Load]) -> None:
        """Gives engines new limits; those of models that are not the LLM's any more answer what they have, and close.

        A model that is replaced is unloaded, although it may be listed and be loaded again by a request that names it.

        Args:
            before: The LLM's configured model, as it was.
            after: The configured model, as it is now.
            listed: The other models that the LLM now offers.
        """
        for engine in self.engines:
            if engine.load_settings == after.load_settings:
                engine.reinstate()
            elif engine.load_settings == before.load_settings or engine.load_settings not in listed:
                engine.retire()
            engine.configure(after.limits)

    def close(self) -> None:
        """Ends all processes and waits for their end; requests in them fail."""
        with self._lock:
            self._closed = True
            engines = self._engines.copy()
        _abandon(engines)
        for engine in engines:
            engine.close()


def _abandon(engines: list[Engine]) -> None:
    for engine in engines:
        engine.close(wait=False)


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that calls the method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (live_method := reference()) is not None:
            live_method()

    return call
