"""Anthropic's Claude models, through the Messages API."""

from abstractllm.providers.anthropic.provider import AnthropicConfig, AnthropicProvider

__all__ = ["AnthropicConfig", "AnthropicProvider"]
