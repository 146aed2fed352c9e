"""Replacing the model of an LLM that is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from abstractllm.enums import LlmState
from abstractllm.errors import ModelInUseError
from abstractllm.providers.huggingface.config import HuggingFaceConfig
from abstractllm.providers.huggingface.engine.handle import Engine
from abstractllm.providers.huggingface.engine.pool import EnginePool

__all__ = ["ModelReplacement"]


class ModelReplacement:
    """A change of configuration that replaces a loaded model, or one that is being loaded.

    Args:
        pool: The LLM's engines.
        before: Its configuration.
        after: What that is to become.
    """

    def __init__(self, pool: EnginePool, before: HuggingFaceConfig, after: HuggingFaceConfig) -> None:
        self._pool = pool
        self._after = after
        self._old = pool.find(before)

    @property
    def is_needed(self) -> bool:
        """Whether there is a model to be replaced; otherwise the next request loads the new one."""
        old = self._old
        is_loaded = old is not None and old.state[0] in (LlmState.LOADING, LlmState.READY)
        return is_loaded and old is not None and old.settings != self._after.load_settings()

    async def obstacle(self) -> ModelInUseError | None:
        """Why both models cannot be loaded at a time; None if they can.

        Raises:
            ModelLoadError: If the new one cannot be loaded whatever is unloaded.
        """
        assert self._old is not None
        new = self._pool.find(self._after) or self._pool.make(self._after)
        found = await asyncio.to_thread(self._pool.memory.obstacle, new, self._old)
        if not found:
            return None
        return ModelInUseError(
            f"model {new.name} cannot be loaded beside model {self._old.name}: {found}; with provider_options.replace "
            "= true the old one goes first",
            field="model",
            requested=new.name,
        )

    @asynccontextmanager
    async def loaded_beside(self) -> AsyncIterator[None]:
        """Loads the new model while the old one answers; if that or the body fails, the new one is unloaded.

        Raises:
            AbstractLLMError: The reason, if it cannot be loaded.
        """
        new = self._pool.get(self._after)
        new.beside = self._old
        try:
            with new.held():
                await _load(new)
                yield
        except BaseException:
            new.retire()
            raise
        finally:
            new.beside = None

    async def load_after(self) -> None:
        """Loads the new model once the old one, which was retired, has answered what it has and is unloaded.

        Raises:
            AbstractLLMError: The reason, if it cannot be loaded.
        """
        assert self._old is not None
        new = self._pool.get(self._after)
        new.waits_for = f"replaces model {self._old.name}, which answers its last requests and is unloaded first"
        try:
            await _load(new)
        finally:
            new.waits_for = ""


async def _load(engine: Engine) -> None:
    async with aclosing(engine.progress()) as steps:
        async for _ in steps:
            pass
