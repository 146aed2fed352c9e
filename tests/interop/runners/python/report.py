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


def error(found: AbstractLLMError) -> dict[str, Any]:
    """An error: its class, its reason, and its facts."""
    return {
        "class": type(found).__name__,
        "reason": str(found.reason),
        "message": found.message,
        "retryable": found.retryable,
        "retry_after": found.retry_after,
        "llm": found.llm,
        "provider": found.provider,
        "upstream_status": found.upstream_status,
        "has_request_id": bool(found.request_id),
        "field": found.field,
        "limit": None if found.limit is None else str(found.limit),
        "requested": None if found.requested is None else str(found.requested),
        "output_tokens": found.output_tokens,
        "partial_text": found.partial_text,
    }


def usage(found: Usage) -> dict[str, Any]:
    """Token counts; absent ones are null."""
    return {
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "cached_input_tokens": found.cached_input_tokens,
        "reasoning_tokens": found.reasoning_tokens,
    }


def event(found: Event) -> dict[str, Any]:
    """An event by its type; empty fields are left out where they may be empty."""
    match found:
        case Started():
            return {"type": "started", "llm": found.llm, "provider": found.provider, "model": found.model}
        case TextDelta():
            return {"type": "text", "text": found.text}
        case ReasoningDelta():
            return {"type": "reasoning", "text": found.text}
        case ToolCallDelta():
            return {
                "type": "tool_call",
                "index": found.index,
                "id": found.id,
                "name": found.name,
                "arguments_fragment": found.arguments_fragment,
            }
        case Finished():
            return {
                "type": "finished",
                "finish_reason": finish_reason(found.finish_reason),
                "stop_sequence": found.stop_sequence,
                "usage": usage(found.usage),
            }


def finish_reason(found: object) -> Any:
    """The word without its prefix in lower case; the number of one that this client does not know."""
    return str(found) if isinstance(found, str) else found


def completion(found: Completion) -> dict[str, Any]:
    """A whole answer."""
    return {
        "text": found.text,
        "message": message(found.message),
        "finish_reason": finish_reason(found.finish_reason),
        "stop_sequence": found.stop_sequence,
        "usage": usage(found.usage),
        "llm": found.llm,
        "provider": found.provider,
        "model": found.model,
        "has_id": bool(found.id),
        "dropped_parameters": list(found.dropped_parameters),
    }


def message(found: ChatMessage) -> dict[str, Any]:
    """A chat message; bytes by their size and SHA-256."""
    return {"role": str(found.role), "parts": [part(one) for one in found.parts]}


def part(found: object) -> dict[str, Any]:
    """One part of a message."""
    match found:
        case Text(text=text):
            told: dict[str, Any] = {"text": text}
        case Image(data=data, mime_type=mime_type):
            digest = hashlib.sha256(data).hexdigest()
            told = {"image": {"mime_type": mime_type, "size": len(data), "sha256": digest}}
        case ToolCall():
            told = {"tool_call": {"id": found.id, "name": found.name, "arguments_json": found.arguments_json}}
        case ToolResult():
            result = {"tool_call_id": found.tool_call_id, "content": found.content, "is_error": found.is_error}
            told = {"tool_result": result}
        case Reasoning(text=text):
            told = {"reasoning": text}
        case _:
            raise TypeError(type(found))
    state: bytes = getattr(found, "provider_state", b"")
    return told | ({"provider_state": state.hex()} if state else {})
