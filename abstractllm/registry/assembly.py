"""The making of a configuration's LLMs, of which some name others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm.errors import AbstractLLMError, ConfigurationError
from abstractllm.factory import provider_class
from abstractllm.interface import AbstractLLMInterface

__all__ = ["Assembly"]


class Assembly:
    """The LLMs of a configuration, each made when it is first asked for.

    A provider whose configuration has the key `llms`, as the one of `fallback`, is handed the LLMs of those names.

    Args:
        lines: For each name `provider` and the keys that `create_llm` takes.
    """

    def __init__(self, lines: Mapping[str, Any]) -> None:
        self._lines = lines
        self._made: dict[str, AbstractLLMInterface[Any]] = {}
        self._making: list[str] = []

    def get(self, name: str) -> AbstractLLMInterface:
        """Returns the LLM of an entry, made with those that it names.

        Raises:
            ConfigurationError: Naming the LLM and the key that is wrong.
        """
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

    def put(self, llm: AbstractLLMInterface[Any]) -> None:
        """Has an LLM that is there already stand for the entry of its name."""
        self._made[llm.name] = llm

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
