"""The named LLMs of one configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from abstractllm._assembly import assemble
from abstractllm.errors import ConfigurationError, UnknownLLMError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.residency import Residency
from abstractllm.types import LlmInfo

__all__ = ["LLMRegistry"]


class LLMRegistry:
    """LLMs by name, one of them the default.

    Args:
        llms: At least one LLM by name.
        default: The one meant by an empty name; the first if absent.
        max_loaded: Local models that may be loaded at a time; no limit if absent. See `Residency`.
        memory_budget: Bytes that these may take together; no limit if absent.

    Raises:
        ConfigurationError: If there is no LLM, the default is not among them, or a limit is less than 1.
    """

    def __init__(
        self,
        llms: Mapping[str, AbstractLLMInterface],
        default: str | None = None,
        *,
        max_loaded: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        if not llms:
            raise ConfigurationError("at least one LLM must be configured", field="llms")
        self.default = default or next(iter(llms))
        if self.default not in llms:
            raise ConfigurationError(
                f"default: no LLM is named {self.default!r}; there are {', '.join(llms)}",
                field="default",
                requested=self.default,
            )
        self._llms = dict(llms)
        residency = Residency(max_loaded, memory_budget)
        for name, llm in self._llms.items():
            llm.name = name
            llm.share(residency)

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
            llms: For each name `provider` and what `create_llm` takes beside it; the LLMs of a fallback by name.
            default: The LLM meant by an empty name.
            max_loaded: Local models that may be loaded at a time.
            memory_budget: Bytes that these may take together.

        Raises:
            ConfigurationError: Naming the LLM and the key that is wrong.
        """
        return cls(assemble(llms), default, max_loaded=max_loaded, memory_budget=memory_budget)

    def __getitem__(self, name: str) -> AbstractLLMInterface:
        """The LLM of this name; the default one for an empty name.

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
        """All LLMs and how they are, in the configuration's order."""
        infos = []
        for name, llm in self._llms.items():
            state, reason = llm.state
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
                    running=llm.running - llm.queued,
                    queued=llm.queued,
                )
            )
        return infos

    async def close(self) -> None:
        """Closes every LLM, even if closing one fails."""
        results = await asyncio.gather(*(llm.close_async() for llm in self), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
