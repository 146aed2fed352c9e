"""Counting a prompt's tokens. Chat Completions cannot; the Responses API can, for the same models.

The format: https://developers.openai.com/api/reference/resources/responses
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from abstractllm.errors import ProviderProtocolError
from abstractllm.providers.openai.config import OpenAIConfig
from abstractllm.providers.openai.messages import as_messages, as_tools
from abstractllm.requests import GenerationRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["count_tokens"]


async def count_tokens(client: AsyncOpenAI, request: GenerationRequest, config: OpenAIConfig) -> int:
    """Counts the tokens of a request's prompt, tools included.

    Raises:
        ProviderProtocolError: If the answer holds no number.
    """
    # The SDK imports its resources when they are first touched, and these are many.
    counter = await asyncio.to_thread(lambda: client.responses.input_tokens)
    items: Any = [item for message in as_messages(request, config) for item in _items(message)]
    tools: Any = [{"type": "function", "strict": False, **tool["function"]} for tool in as_tools(request)]
    response = await counter.count(model=request.parameters.model, input=items, tools=tools or None)
    count = getattr(response, "input_tokens", None)
    if not isinstance(count, int) or count < 0:
        raise ProviderProtocolError(f"the answer holds no count of tokens: {response!r:.200}")
    return count


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one of Chat Completions' messages as input items of the Responses API."""
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    content = message["content"]
    if isinstance(content, list):
        content = [
            {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
            if part["type"] == "image_url"
            else {"type": "input_text", "text": part["text"]}
            for part in content
        ]
    calls = [
        {
            "type": "function_call",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": call["function"]["arguments"],
        }
        for call in message.get("tool_calls", ())
    ]
    return ([{"role": message["role"], "content": content}] if content else []) + calls
