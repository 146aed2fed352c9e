"""The form in which runners report: the same in every language."""

from __future__ import annotations

import hashlib
from typing import Any

from abstractllm_client import (
    AbstractLLMError,
    ChatMessage,
    Completion,
    Event,
    Finished,
    Image,
    Reasoning,
    ReasoningDelta,
    Started,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)


def error(failure: AbstractLLMError) -> dict[str, Any]:
    """An error: its class, its reason, and its facts."""
    return {
        "class": type(failure).__name__,
        "reason": str(failure.reason),
        "message": failure.message,
        "retryable": failure.retryable,
        "retry_after": failure.retry_after,
        "llm": failure.llm,
        "provider": failure.provider,
        "upstream_status": failure.upstream_status,
        "has_request_id": bool(failure.request_id),
        "field": failure.field,
        "limit": None if failure.limit is None else str(failure.limit),
        "requested": None if failure.requested is None else str(failure.requested),
        "output_tokens": failure.output_tokens,
        "partial_text": failure.partial_text,
    }


def usage(counts: Usage) -> dict[str, Any]:
    """Token counts; absent ones are null."""
    return {
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "cached_input_tokens": counts.cached_input_tokens,
        "reasoning_tokens": counts.reasoning_tokens,
    }


def event(value: Event) -> dict[str, Any]:
    """An event by its type; empty fields are left out where they may be empty."""
    match value:
        case Started():
            return {"type": "started", "llm": value.llm, "provider": value.provider, "model": value.model}
        case TextDelta():
            return {"type": "text", "text": value.text}
        case ReasoningDelta():
            return {"type": "reasoning", "text": value.text}
        case ToolCallDelta():
            return {
                "type": "tool_call",
                "index": value.index,
                "id": value.id,
                "name": value.name,
                "arguments_fragment": value.arguments_fragment,
            }
        case Finished():
            return {
                "type": "finished",
                "finish_reason": finish_reason(value.finish_reason),
                "stop_sequence": value.stop_sequence,
                "usage": usage(value.usage),
            }


def finish_reason(reason: object) -> Any:
    """The word without its prefix in lower case; the number of one that this client does not know."""
    return str(reason) if isinstance(reason, str) else reason


def completion(answer: Completion) -> dict[str, Any]:
    """A whole answer."""
    return {
        "text": answer.text,
        "message": message(answer.message),
        "finish_reason": finish_reason(answer.finish_reason),
        "stop_sequence": answer.stop_sequence,
        "usage": usage(answer.usage),
        "llm": answer.llm,
        "provider": answer.provider,
        "model": answer.model,
        "has_id": bool(answer.id),
        "dropped_parameters": list(answer.dropped_parameters),
    }


def message(chat_message: ChatMessage) -> dict[str, Any]:
    """A chat message; bytes by their size and SHA-256."""
    return {"role": str(chat_message.role), "parts": [part(one) for one in chat_message.parts]}


def part(value: object) -> dict[str, Any]:
    """One part of a message."""
    match value:
        case Text(text=text):
            told: dict[str, Any] = {"text": text}
        case Image(data=data, mime_type=mime_type):
            digest = hashlib.sha256(data).hexdigest()
            told = {"image": {"mime_type": mime_type, "size": len(data), "sha256": digest}}
        case ToolCall():
            told = {"tool_call": {"id": value.id, "name": value.name, "arguments_json": value.arguments_json}}
        case ToolResult():
            result = {"tool_call_id": value.tool_call_id, "content": value.content, "is_error": value.is_error}
            told = {"tool_result": result}
        case Reasoning(text=text):
            told = {"reasoning": text}
        case _:
            raise TypeError(type(value))
    state: bytes = getattr(value, "provider_state", b"")
    return told | ({"provider_state": state.hex()} if state else {})
