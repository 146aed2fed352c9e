"""Between the library's words and the engine's."""

from __future__ import annotations

from abstractllm.enums import Role
from abstractllm.errors import UnsupportedFeatureError
from abstractllm.providers.huggingface.worker.protocol import Logprob, TopToken, Turn
from abstractllm.requests import GenerationRequest
from abstractllm.types import ChatMessage, Reasoning, TokenLogprob, ToolResult, TopLogprob

__all__ = ["as_conversation", "as_token_logprob"]


def as_conversation(request: GenerationRequest) -> tuple[Turn, ...]:
    """A request's messages, the system prompt in its place.

    Raises:
        UnsupportedFeatureError: If one of them holds a tool's result.
    """
    return tuple(_turn(message, index) for index, message in enumerate(request.conversation()))


def _turn(message: ChatMessage, index: int) -> Turn:
    if message.role is Role.TOOL or any(isinstance(part, ToolResult) for part in message.parts):
        raise UnsupportedFeatureError(
            "tools are not supported by this LLM", field=f"chat.messages[{index}].tool_result"
        )
    reasoning = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    return Turn(message.role.value, message.text, reasoning)


def as_token_logprob(found: Logprob) -> TokenLogprob:
    """A position's log-probabilities; bytes that are no text alone are shown as replacement characters."""
    top = tuple(TopLogprob(token.token_id, _text(token), token.token_bytes, token.logprob) for token in found.top)
    return TokenLogprob(found.token_id, _text(found), found.token_bytes, found.logprob, top)


def _text(token: Logprob | TopToken) -> str:
    return token.token_bytes.decode("utf-8", "replace")
