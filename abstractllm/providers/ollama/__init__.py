"""Models that an Ollama server runs."""

from abstractllm.providers.ollama.config import OllamaConfig
from abstractllm.providers.ollama.provider import OllamaProvider

__all__ = ["OllamaConfig", "OllamaProvider"]
