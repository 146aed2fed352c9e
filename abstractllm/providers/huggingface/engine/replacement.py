"""The replacement of an LLM's loaded model by another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from abstractllm.enums import LlmState
from abstractllm.errors import ModelInUseError
from abstractllm.providers.huggingface.engine.handle import Engine
from abstractllm.providers.huggingface.engine.pool import EnginePool
from abstractllm.providers.huggingface.engine.settings import EngineSettings

__all__ = ["ModelReplacement"]


class ModelReplacement:
    """A change of configuration that replaces a loaded model, or one that is being loaded.

    Args:
        pool: The LLM's engines.
        before: Its configured model, as it is.
        after: The model that is to be configured.
    """

    def __init__(self, pool: EnginePool, before: EngineSettings, after: EngineSettings) -> None:
        self._pool = pool
        self._after = after
        self._old = pool.find(before.load_settings)

    @property
    def is_needed(self) -> bool:
        """True if there is a loaded model to replace; otherwise the next request loads the new one."""
        old = self._old
        is_loaded = old is not None and old.state[0] in (LlmState.LOADING, LlmState.READY)
        return is_loaded and old is not None and old.load_settings != self._after.load_settings

    async def obstacle(self) -> ModelInUseError | None:
        """Returns the error that says why both models cannot be loaded at a time; None if they can.

        Raises:
            ModelLoadError: If the new one cannot be loaded whatever is unloaded.
        """
        assert self._old is not None
        new = self._pool.find(self._after.load_settings) or self._pool.make(self._after)
        reason = await asyncio.to_thread(self._pool.memory.obstacle, new.resident, self._old.resident)
        if not reason:
            return None
        return ModelInUseError(
            f"model {new.name} cannot be loaded beside model {self._old.name}: {reason}; with provider_options.replace "
            "= true the old one is unloaded first",
            field="model",
            requested=new.name,
        )

    @asynccontextmanager
    async def loaded_beside(self) -> AsyncIterator[None]:
        """Loads the new model while the old one answers; if that or the body fails, the new one is unloaded.

        Raises:
            AbstractLLMError: The reason, if it cannot be loaded.
        """
        assert self._old is not None
        new = self._pool.get(self._after)
        new.resident.beside = self._old.resident
        try:
            with new.pinned():
                await _load(new)
                yield
        except BaseException:
            new.retire()
            raise
        finally:
            new.resident.beside = None

    async def load_after(self) -> None:
        """Loads the new model once the old one, which was retired, has answered what it has and is unloaded.

        Raises:
            AbstractLLMError: The reason, if it cannot be loaded.
        """
        assert self._old is not None
        new = self._pool.get(self._after)
        new.resident.wait_reason = (
            f"replaces model {self._old.name}, which answers its last requests and is unloaded first"
        )
        try:
            await _load(new)
        finally:
            new.resident.wait_reason = ""


async def _load(engine: Engine) -> None:
    async with aclosing(engine.progress()) as steps:
        async for _ in steps:
            pass
