"""The `openai` provider: Chat Completions of OpenAI and of every server that speaks the same format."""

from abstractllm.providers.openai.config import OpenAIConfig
from abstractllm.providers.openai.provider import OpenAIProvider

__all__ = ["OpenAIConfig", "OpenAIProvider"]
