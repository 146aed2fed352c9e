"""Creating LLMs by the names of their providers."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from abstractllm.errors import ConfigurationError, UnknownProviderError
from abstractllm.interface import AbstractLLMInterface

__all__ = ["ENTRY_POINT_GROUP", "available_providers", "create_llm", "provider_class"]

ENTRY_POINT_GROUP = "abstractllm.providers"
"""The entry-point group in which other packages register their providers."""

_PROVIDERS = {
    "anthropic": "abstractllm.providers.anthropic:AnthropicProvider",
    "fallback": "abstractllm.providers.fallback:FallbackProvider",
    "huggingface": "abstractllm.providers.huggingface:HuggingFaceProvider",
    "ollama": "abstractllm.providers.ollama:OllamaProvider",
    "openai": "abstractllm.providers.openai:OpenAIProvider",
    "ray": "abstractllm.providers.ray:RayProvider",
    "scripted": "abstractllm.testing:ScriptedProvider",
}


def create_llm(provider: str, **config: Any) -> AbstractLLMInterface:
    """Creates an LLM; nothing is loaded or connected yet.

    Example:
        ```python
        with create_llm("huggingface", model="demo", temperature=0) as llm:
            print(llm.generate("What is the capital of France?"))
        ```

    Args:
        provider: A name that `available_providers` returns, such as `huggingface`.
        **config: The keys of the provider's configuration: `model`, `api_key`, `timeout`, generation parameters that
            become the LLM's defaults, and so on; the same as in an entry under `llms` in the configuration file.

    Returns:
        The LLM. Close it when it is done with, or use it as a context manager.

    Raises:
        UnknownProviderError: If there is no such provider.
        ConfigurationError: If a key is unknown, its value malformed, or the provider's package is not installed.
    """
    return provider_class(provider)(config)


def available_providers() -> list[str]:
    """Returns the names of all providers, those of other installed packages included."""
    return sorted({*_PROVIDERS, *entry_points(group=ENTRY_POINT_GROUP).names})


def provider_class(provider: str) -> type[AbstractLLMInterface[Any]]:
    """Returns the class behind a provider's name; importing it imports no SDK.

    Raises:
        UnknownProviderError: If there is no such provider.
        ConfigurationError: If its entry point does not lead to a provider class.
    """
    if provider in _PROVIDERS:
        module, name = _PROVIDERS[provider].split(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    entries = tuple(entry_points(group=ENTRY_POINT_GROUP, name=provider))
    if not entries:
        known = ", ".join(available_providers())
        raise UnknownProviderError(
            f"unknown provider {provider!r}; available: {known}",
            field="provider",
            limit=known,
            requested=provider,
        )
    return _load(entries[0])


def _load(entry: EntryPoint) -> type[AbstractLLMInterface[Any]]:
    kind = entry.load()
    if not (isinstance(kind, type) and issubclass(kind, AbstractLLMInterface)):
        raise ConfigurationError(f"provider {entry.name!r} ({entry.value}) is not an AbstractLLMInterface class")
    return kind
