"""The registry of named LLMs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from abstractllm._core.model_memory import ModelMemory
from abstractllm.config import LLMConfig
from abstractllm.errors import ConfigurationError, UnknownLLMError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry.assembly import Assembly
from abstractllm.registry.difference import Difference, Plan, make_plan
from abstractllm.types import LlmInfo

__all__ = ["LLMRegistry"]

logger = logging.getLogger("abstractllm.registry")

_CLOSING_TIMEOUT = 30.0
"""Seconds that closing an LLM that was removed may take; then it is left as it is."""
_LOOK_AGAIN = 0.5
"""Seconds between two looks whether an LLM that was removed still answers requests."""


class LLMRegistry:
    """LLMs by name, one of them the default.

    Example:
        ```python
        registry = LLMRegistry.from_config({
            "local": {"provider": "huggingface", "model": "demo"},
            "gpt": {"provider": "openai", "api_key": "sk-..."},
        })
        print(registry["local"].generate("What is the capital of France?"))
        asyncio.run(registry.close())
        ```

    Args:
        llms: At least one LLM by name.
        default: The name of the LLM that an empty name stands for; the first if absent.
        max_loaded: Local models that may be loaded at a time; no limit if absent. See `ModelMemory`.
        memory_budget: Bytes that these may take together; no limit if absent.

    Raises:
        ConfigurationError: If there is no LLM, the default is not among them, or a limit is less than 1.
    """

    def __init__(
        self,
        llms: Mapping[str, AbstractLLMInterface[Any]],
        default: str | None = None,
        *,
        max_loaded: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.default = _default_of(llms, default)
        self._llms = dict(llms)
        """Never changed, but replaced as a whole: other threads read it."""
        self._configured: dict[str, LLMConfig] = {name: llm.config for name, llm in llms.items()}
        self._memory = ModelMemory(max_loaded, memory_budget)
        self._listeners: list[Callable[[], None]] = []
        self._changing: dict[str, asyncio.Lock] = {}
        self._applying = asyncio.Lock()
        self._leaving: list[AbstractLLMInterface[Any]] = []
        """LLMs that were removed and still answer requests."""
        self._farewell: asyncio.Task[None] | None = None
        for name, llm in self._llms.items():
            llm.name = name
            llm.share(self._memory)
            llm.on_change(self._changed)

    @classmethod
    def from_config(
        cls,
        llms: Mapping[str, Mapping[str, Any]],
        default: str | None = None,
        *,
        max_loaded: int | None = None,
        memory_budget: int | None = None,
    ) -> LLMRegistry:
        """Creates the LLMs of a configuration; nothing is loaded or connected yet.

        Args:
            llms: For each name `provider` and the keys that `create_llm` takes; the LLMs of a fallback by name.
            default: The name of the LLM that an empty name stands for; the first if absent.
            max_loaded: Local models that may be loaded at a time.
            memory_budget: Bytes that these may take together.

        Raises:
            ConfigurationError: Naming the LLM and the key that is wrong.
        """
        assembly = Assembly(llms)
        return cls(
            {name: assembly.get(name) for name in llms}, default, max_loaded=max_loaded, memory_budget=memory_budget
        )

    def __getitem__(self, name: str) -> AbstractLLMInterface:
        """Returns the LLM of this name; the default one for an empty name.

        Raises:
            UnknownLLMError: If there is none.
        """
        try:
            return self._llms[name or self.default]
        except KeyError:
            known = ", ".join(self._llms)
            raise UnknownLLMError(
                f"llm: no LLM is named {name[:80]!r}; there are {known}",
                field="llm",
                limit=known,
                requested=name[:80],
            ) from None

    def __iter__(self) -> Iterator[AbstractLLMInterface]:
        return iter(self._llms.values())

    def __len__(self) -> int:
        return len(self._llms)

    def list(self) -> list[LlmInfo]:
        """Returns all LLMs and their states, in the configuration's order."""
        infos = []
        for name, llm in self._llms.items():
            state, reason = llm.state
            queued = llm.queued
            infos.append(
                LlmInfo(
                    name=name,
                    provider=llm.provider,
                    model=llm.config.model,
                    is_default=name == self.default,
                    state=state,
                    state_reason=reason,
                    device=llm.device,
                    memory_bytes=llm.memory_bytes,
                    # What an LLM asks for itself, such as what a model can do, may wait, too.
                    running=max(0, llm.running - queued),
                    queued=queued,
                )
            )
        return infos

    def configured(self, name: str) -> LLMConfig:
        """Returns the configuration that an LLM was made with, or that `apply` gave it, whatever was changed since.

        Args:
            name: The LLM's full name.
        """
        return self._configured[name]

    def on_change(self, listener: Callable[[], None]) -> None:
        """Registers a function that is called, from any thread, when an LLM's state or the LLMs themselves change."""
        self._listeners.append(listener)

    @contextlib.asynccontextmanager
    async def changing(self, name: str) -> AsyncIterator[AbstractLLMInterface[Any]]:
        """Gives an LLM to who changes its configuration; nobody else changes it meanwhile.

        Args:
            name: The LLM's name; the default one's if empty.

        Raises:
            UnknownLLMError: If there is none.
        """
        full_name = self[name].name
        async with self._changing.setdefault(full_name, asyncio.Lock()):
            yield self[full_name]

    async def apply(
        self,
        llms: Mapping[str, Mapping[str, Any]],
        default: str | None = None,
        *,
        max_loaded: int | None = None,
        memory_budget: int | None = None,
        prepare_others: Callable[[], Awaitable[Callable[[], None]]] | None = None,
    ) -> Difference:
        """Takes a new configuration over: LLMs are added, changed and removed, without a pause for the others.

        Requests that run keep their LLM and its configuration. An LLM that was removed answers what it has and is then
        closed. Where the loaded model of an LLM changes, the new one is loaded first, while the old one answers; if
        both do not fit into memory, the old one answers what it has and is unloaded first. Changes that were made by
        `set_config` are undone. All changes come into force together; after any failure none does.

        Args:
            llms: As for `from_config`.
            default: As for `from_config`.
            max_loaded: As for `from_config`.
            memory_budget: As for `from_config`.
            prepare_others: Prepares, last of all, what else is to change, and returns the function that changes it.

        Returns:
            The names of the LLMs that were added, changed and removed.

        Raises:
            ConfigurationError: Naming the LLM and the key that is wrong.
            AbstractLLMError: The reason why a model cannot be loaded in place of another.
        """
        async with self._applying, contextlib.AsyncExitStack() as stack:
            default_name = _default_of(llms, default)
            plan = await asyncio.to_thread(make_plan, self._llms, llms)
            stack.push_async_exit(partial(self._close_unused, plan))
            stack.enter_context(self._memory.limits_of_both(max_loaded, memory_budget))
            # In one order, so that two who wait for several of them never wait for each other.
            for llm in sorted(plan.changing, key=lambda llm: llm.name):
                await stack.enter_async_context(self.changing(llm.name))
                await stack.enter_async_context(llm.prepared_for(plan.configs[llm.name], replace=True))
            change_others = await prepare_others() if prepare_others is not None else None
            self._commit(plan)
            self.default = default_name
            if change_others is not None:
                change_others()
            self._memory.set_limits(max_loaded, memory_budget)
        self._changed()
        return plan.difference

    async def _close_unused(self, plan: Plan, *_: object) -> None:
        """Closes the new LLMs of a plan that has not come into force: a fallback listens to LLMs that stay."""
        if self._llms is not plan.llms:
            for llm in plan.arriving:
                await llm.close_async()

    def _commit(self, plan: Plan) -> None:
        """Puts the LLMs of a plan into force, in one step of the event loop."""
        for llm in plan.arriving:
            llm.share(self._memory)
            llm.on_change(self._changed)
        for llm in plan.leaving:
            llm.off_change(self._changed)
        for llm in plan.changing:
            llm.adopt(plan.configs[llm.name])
        self._configured = plan.configs
        self._llms = plan.llms
        self._leaving += plan.leaving
        if self._leaving and (self._farewell is None or self._farewell.done()):
            self._farewell = asyncio.create_task(self._see_off(), name="removed LLMs")

    async def _see_off(self) -> None:
        """Closes the LLMs that were removed, each when it has answered what it has."""
        idle: set[int] = set()
        while self._leaving:
            await asyncio.sleep(_LOOK_AGAIN)
            needed = {id(member) for llm in self._leaving for member in llm.members}
            now_idle = {id(llm) for llm in self._leaving if not llm.running and id(llm) not in needed}
            for llm in [llm for llm in self._leaving if id(llm) in idle & now_idle]:
                self._leaving.remove(llm)
                try:
                    async with asyncio.timeout(_CLOSING_TIMEOUT):
                        await llm.close_async()
                except Exception:
                    logger.exception("LLM %s, which was removed, cannot be closed", llm.name)
                else:
                    logger.info("LLM %s, which was removed, has answered its last requests and is closed", llm.name)
            idle = now_idle

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    async def close(self) -> None:
        """Closes every LLM, even if closing one fails; those that were removed, too."""
        if self._farewell is not None:
            self._farewell.cancel()
        llms = [*self, *self._leaving]
        results = await asyncio.gather(*(llm.close_async() for llm in llms), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


def _default_of(llms: Mapping[str, Any], default: str | None) -> str:
    """Returns the name of the default LLM.

    Raises:
        ConfigurationError: If there is no LLM, or none of that name.
    """
    if not llms:
        raise ConfigurationError("at least one LLM must be configured", field="llms")
    name = default or next(iter(llms))
    if name not in llms:
        raise ConfigurationError(
            f"default: no LLM is named {name!r}; there are {', '.join(llms)}", field="default", requested=name
        )
    return name
