"""The configuration of a fallback."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field

from abstractllm.config import LLMConfig, Seconds
from abstractllm.errors import ConfigurationError

__all__ = ["FallbackConfig", "Strategy"]


class Strategy(StrEnum):
    """The choice of the LLM that is asked first; the others follow in the configured order."""

    ORDERED = "ordered"
    """Always the first one."""
    ROUND_ROBIN = "round_robin"
    """Each in turn."""
    LEAST_BUSY = "least_busy"
    """The one with the fewest requests, waiting ones included; of several the first."""


class FallbackConfig(LLMConfig):
    """The keys of a fallback, beside those of every LLM but `model` and `models`."""

    llms: tuple[str, ...]
    """The names of its LLMs, in the order of preference."""
    strategy: Strategy = Strategy.ORDERED
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    """The number of times that all LLMs are asked again, if none of them answered and an error is retryable; their own
    `max_retries` do not count here."""
    failure_threshold: Annotated[int, Field(ge=1, le=1000)] = 3
    """Failures in a row after which an LLM is not asked for a while."""
    cooldown_time: Seconds = 30.0
    """Seconds for which it is not asked; then one request tries whether it is well again."""

    @classmethod
    def _build(cls, values: dict[str, Any]) -> Self:
        for key in ("model", "models"):
            if values.get(key):
                raise ConfigurationError(f"{key}: a fallback does not take it: set it for each of its LLMs", field=key)
        return super()._build(values)
