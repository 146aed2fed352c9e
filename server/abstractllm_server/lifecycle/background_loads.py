"""LLMs that are loaded before their first request: at the start, and when a new configuration brings them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from abstractllm.errors import AbstractLLMError, ConfigurationError, ProviderCredentialsError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm.types import LlmState

__all__ = ["BackgroundLoads", "log_state"]

logger = logging.getLogger("abstractllm.server")

_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0
_FOR_GOOD = (ConfigurationError, ProviderCredentialsError)
"""Errors that another attempt does not mend."""


class BackgroundLoads:
    """Loads LLMs, one task for each, and logs the outcomes.

    One that cannot be loaded is tried again after growing pauses, up to five minutes: its requests would do that, but
    while it is not ready it gets none where somebody asks for its readiness. It is left alone once it is loaded, or
    unloaded, by others.

    Args:
        registry: The LLMs.
        on_attempted: Called with the name of each LLM once its loading has ended, with or without success.
    """

    def __init__(self, registry: LLMRegistry, on_attempted: Callable[[str], None]) -> None:
        self._registry = registry
        self._on_attempted = on_attempted
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, names: Iterable[str]) -> None:
        """Begins to load LLMs."""
        for name in names:
            task = asyncio.create_task(self._load(self._registry[name]), name=f"load {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Follows the loads no more; the LLMs end them when they are closed."""
        for task in self._tasks:
            task.cancel()

    async def _load(self, llm: AbstractLLMInterface) -> None:
        pause = _FIRST_PAUSE
        while not await self._attempt(llm):
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
            if llm.state[0] is not LlmState.FAILED or llm not in list(self._registry):
                return

    async def _attempt(self, llm: AbstractLLMInterface) -> bool:
        """Loads an LLM; returns False if another attempt may succeed."""
        try:
            await llm.load()
            log_state(llm)
        except AbstractLLMError as error:
            logger.error("LLM %s (%s, %s) cannot be loaded: %s", llm.name, llm.provider, llm.config.model, error)
            return isinstance(error, _FOR_GOOD)
        except Exception:
            logger.exception("LLM %s (%s, %s) cannot be loaded", llm.name, llm.provider, llm.config.model)
            return False
        finally:
            self._on_attempted(llm.name)
        return True


def log_state(llm: AbstractLLMInterface) -> None:
    """Logs the state of an LLM that was loaded: one without a key needs no loading, and cannot answer."""
    state, reason = llm.state
    words = f"is {state.lower()}" + (f": {reason}" if reason else "")
    level = logging.INFO if state is LlmState.READY else logging.ERROR
    logger.log(level, "LLM %s (%s, %s) %s", llm.name, llm.provider, llm.config.model, words)
