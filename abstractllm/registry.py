"""The named LLMs of one configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from abstractllm._core.model_memory import ModelMemory
from abstractllm.errors import AbstractLLMError, ConfigurationError, UnknownLLMError
from abstractllm.factory import provider_class
from abstractllm.interface import AbstractLLMInterface
from abstractllm.types import LlmInfo

__all__ = ["LLMRegistry"]


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
        memory = ModelMemory(max_loaded, memory_budget)
        for name, llm in self._llms.items():
            llm.name = name
            llm.share(memory)

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
        return cls(_assemble(llms), default, max_loaded=max_loaded, memory_budget=memory_budget)

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


def _assemble(lines: Mapping[str, Any]) -> dict[str, AbstractLLMInterface[Any]]:
    """Makes the LLM of each entry, in the entries' order.

    A provider whose configuration has the key `llms`, as the one of `fallback`, is handed the LLMs of those names.

    Args:
        lines: For each name `provider` and the keys that `create_llm` takes.

    Raises:
        ConfigurationError: Naming the LLM and the key that is wrong.
    """
    assembly = _Assembly(lines)
    return {name: assembly.get(name) for name in lines}


class _Assembly:
    """The lines, and the LLMs made of them so far."""

    def __init__(self, lines: Mapping[str, Any]) -> None:
        self._lines = lines
        self._made: dict[str, AbstractLLMInterface[Any]] = {}
        self._making: list[str] = []

    def get(self, name: str) -> AbstractLLMInterface:
        """Returns the LLM of an entry, made with those that it names."""
        if name not in self._made:
            self._making.append(name)
            try:
                self._made[name] = self._make(self._lines[name])
            except _PlacedError:
                raise
            except AbstractLLMError as error:
                raise _PlacedError(name, error) from error
            self._made[name].name = name
            self._making.pop()
        return self._made[name]

    def _make(self, line: Any) -> AbstractLLMInterface:
        if not isinstance(line, Mapping):
            raise ConfigurationError("must be a mapping", field="")
        config = dict(line)
        provider = config.pop("provider", None)
        if not isinstance(provider, str):
            raise ConfigurationError("provider is missing", field="provider")
        names = config.get("llms")
        if isinstance(names, list | tuple) and "llms" in provider_class(provider).config_type.model_fields:
            config["llms"] = [self._named(name, f"llms[{index}]") for index, name in enumerate(names)]
        return provider_class(provider)(config)

    def _named(self, name: object, field: str) -> AbstractLLMInterface:
        if not isinstance(name, str) or name not in self._lines:
            known = ", ".join(self._lines)
            raise ConfigurationError(
                f"{field}: no LLM is named {name!r:.80}; there are {known}",
                field=field,
                limit=known,
                requested=f"{name!r:.80}",
            )
        if name in self._making:
            circle = " -> ".join([*self._making[self._making.index(name) :], name])
            raise ConfigurationError(f"{field}: LLMs name each other in a circle: {circle}", field=field)
        return self.get(name)


class _PlacedError(ConfigurationError):
    """A fault of one entry, with the entry's place in the configuration."""

    def __init__(self, name: str, error: AbstractLLMError) -> None:
        super().__init__(
            f"llms.{name}: {error.message}",
            field=f"llms.{name}.{error.field}" if error.field else f"llms.{name}",
            limit=error.limit,
            requested=error.requested,
        )
