"""The provider `fallback`: several LLMs behind one name."""

from abstractllm.providers.fallback.config import FallbackConfig, Strategy
from abstractllm.providers.fallback.provider import FallbackProvider

__all__ = ["FallbackConfig", "FallbackProvider", "Strategy"]
