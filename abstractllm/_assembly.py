"""From the lines of a configuration to LLMs, those that others are made of first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.factory import create_llm, provider_class
from abstractllm.interface import AbstractLLMInterface

__all__ = ["assemble"]


def assemble(lines: Mapping[str, Any]) -> dict[str, AbstractLLMInterface]:
    """Makes the LLM of each line, in the lines' order.

    A provider whose configuration has the key `llms`, as the one of `fallback`, is handed the LLMs of those names.

    Args:
        lines: For each name `provider` and what `create_llm` takes beside it.

    Raises:
        ConfigurationError: Naming the LLM and the key that is wrong.
    """
    assembly = _Assembly(lines)
    return {name: assembly.get(name) for name in lines}


class _Assembly:
    """The lines, and the LLMs made of them so far."""

    def __init__(self, lines: Mapping[str, Any]) -> None:
        self._lines = lines
        self._made: dict[str, AbstractLLMInterface] = {}
        self._making: list[str] = []

    def get(self, name: str) -> AbstractLLMInterface:
        """The LLM of a line, made with those that it names."""
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
        return create_llm(provider, **config)

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
    """A fault of one line, with the line's place in the configuration."""

    def __init__(self, name: str, error: AbstractLLMError) -> None:
        super().__init__(
            f"llms.{name}: {error.message}",
            field=f"llms.{name}.{error.field}" if error.field else f"llms.{name}",
            limit=error.limit,
            requested=error.requested,
        )
