"""LLMs that are loaded before their first request: at the start, and when a new configuration brings them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any

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

    One that cannot be loaded is tried again after growing pauses, up to five minutes; so is one that was loaded and
    cannot be again, after a crash. Its requests would do that, but while it is not ready it gets none where somebody
    asks for its readiness. It is left alone while it is loaded, or was unloaded, by others. Whoever begins a load that
    pauses has it tried again at once: what was wrong may be mended.

    Args:
        registry: The LLMs.
        on_attempted: Called with the name of each LLM once its loading has ended, with or without success.
    """

    def __init__(self, registry: LLMRegistry, on_attempted: Callable[[str], None]) -> None:
        self._registry = registry
        self._on_attempted = on_attempted
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopped = False
        self._wanted: set[str] = set()
        self._hopeless: set[str] = set()
        """Those that another attempt would not load."""
        self._tasks: dict[AbstractLLMInterface[Any], asyncio.Task[None]] = {}
        self._at_once: dict[AbstractLLMInterface[Any], asyncio.Event] = {}
        """Set where an LLM with a task is to be loaded without a further pause."""

    def begin(self, names: Iterable[str], wanted: Iterable[str] | None = None) -> None:
        """Begins to load LLMs, in the running event loop.

        Args:
            names: The names of those LLMs.
            wanted: The names of all that are tried again from now on, if they fail; those of earlier calls, too, if
                absent.
        """
        if wanted is not None:
            self._wanted = set(wanted)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._registry.on_change(self._changed)
        for name in names:
            self._wanted.add(name)
            self._hopeless.discard(name)
            llm = self._registry[name]
            if llm in self._tasks:
                self._at_once[llm].set()
            else:
                self._start(llm, 0.0)

    def stop(self) -> None:
        """Follows the loads no more; the LLMs end them when they are closed."""
        self._is_stopped = True
        for task in self._tasks.values():
            task.cancel()

    def _start(self, llm: AbstractLLMInterface[Any], pause: float) -> None:
        self._at_once[llm] = asyncio.Event()
        self._tasks[llm] = task = asyncio.create_task(
            self._load(llm, pause, self._at_once[llm]), name=f"load {llm.name}"
        )
        task.add_done_callback(lambda _: self._ended(llm))

    def _ended(self, llm: AbstractLLMInterface[Any]) -> None:
        del self._tasks[llm]
        if self._at_once.pop(llm).is_set() and not self._is_stopped:  # between its last step and this
            self._start(llm, 0.0)

    def _changed(self) -> None:
        """Looks for LLMs that have failed; called from any thread."""
        if self._loop is not None and not self._is_stopped:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._is_stopped:
            return
        for llm in self._registry:
            is_wanted = llm.name in self._wanted - self._hopeless and llm not in self._tasks
            if is_wanted and llm.state[0] is LlmState.FAILED:
                self._start(llm, _FIRST_PAUSE)

    async def _load(self, llm: AbstractLLMInterface[Any], pause: float, at_once: asyncio.Event) -> None:
        while True:
            if pause:
                try:
                    await asyncio.wait_for(at_once.wait(), pause)
                    pause = 0.0
                except TimeoutError:
                    if llm.state[0] is not LlmState.FAILED or llm not in list(self._registry):
                        return
                    if llm.name not in self._wanted:
                        return
            at_once.clear()
            if await self._attempt(llm) and not at_once.is_set():
                return
            pause = min(_LONGEST_PAUSE, 2 * pause) if pause else _FIRST_PAUSE

    async def _attempt(self, llm: AbstractLLMInterface[Any]) -> bool:
        """Loads an LLM; returns False if another attempt may succeed."""
        try:
            await llm.load()
            log_state(llm)
        except AbstractLLMError as error:
            if llm not in list(self._registry):
                return True  # it was removed, which ended its load
            logger.error("LLM %s (%s, %s) cannot be loaded: %s", llm.name, llm.provider, llm.config.model, error)
            if not isinstance(error, _FOR_GOOD):
                return False
            self._hopeless.add(llm.name)
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
