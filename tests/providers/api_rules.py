"""The rules by which hosted APIs refuse a conversation, from their documentation and their error messages."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

_NAME = r"[A-Za-z0-9_-]{1,64}"
_OPENAI_KEYS = {"role", "content", "tool_calls", "tool_call_id"}


def openai_faults(body: dict[str, Any]) -> Iterator[str]:
    """Yields what OpenAI refuses of a request's messages."""
    yield from _chat_faults(body, r"[\s\S]{1,40}")
    for message in body["messages"]:
        if unknown := set(message) - _OPENAI_KEYS:
            yield f"unknown fields {unknown} of {message}"


def mistral_faults(body: dict[str, Any]) -> Iterator[str]:
    """Yields what Mistral refuses of a request's messages."""
    yield from _chat_faults(body, r"[a-zA-Z0-9]{9}")
    roles = [message["role"] for message in body["messages"]]
    for before, role in pairwise(roles):
        if (before, role) == ("tool", "user"):
            yield f"Unexpected role 'user' after role 'tool': {roles}"


def _chat_faults(body: dict[str, Any], id_pattern: str) -> Iterator[str]:
    yield from _json_faults(body)
    messages, waiting, taken = body["messages"], list[str](), set[str]()
    if not messages:
        yield "no messages"
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield f"a result of no call: {message}"
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            yield f"the calls {waiting} have no results before {message}"
        calls = message.get("tool_calls", [])
        if message["role"] == "assistant" and not message["content"] and not calls:
            yield f"neither content nor calls: {message}"
        for call in calls:
            if not re.fullmatch(id_pattern, call["id"]) or call["id"] in taken:
                yield f"the id of {call}"
            if not re.fullmatch(_NAME, call["function"]["name"]):
                yield f"the name of {call}"
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                yield f"the arguments of {call}"
            taken.add(call["id"])
        waiting = [call["id"] for call in calls]
    if waiting:
        yield f"the calls {waiting} have no results"


def anthropic_faults(body: dict[str, Any]) -> Iterator[str]:
    """Yields what Anthropic refuses of a request's messages."""
    yield from _json_faults(body)
    messages, taken, calls = body["messages"], set[str](), list[str]()
    if not messages:
        yield "at least one message is required"
    for place, message in enumerate(messages):
        blocks = message["content"]
        if not blocks:
            yield f"empty content: {message}"
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if calls and (kinds[: len(calls)] != ["tool_result"] * len(calls) or sorted(results) != sorted(calls)):
            yield f"the calls {calls} have other results directly after them: {message}"
        if not calls and results:
            yield f"results of no calls: {message}"
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for block in blocks:
            match block["type"]:
                case "text" if not block["text"].strip():
                    yield "text content blocks must contain non-whitespace text"
                case "tool_use":
                    if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) or block["id"] in taken:
                        yield f"the id of {block}"
                    if not re.fullmatch(_NAME, block["name"]) or not isinstance(block["input"], dict):
                        yield f"the name or input of {block}"
                    taken.add(block["id"])
                case "tool_result" if block.get("is_error") and not block["content"].strip():
                    yield f"content cannot be empty if is_error is true: {block}"
        if message["role"] == "assistant" and kinds and kinds[-1] in ("thinking", "redacted_thinking"):
            yield f"the final block in an assistant message cannot be thinking: {message}"
        is_continued = place == len(messages) - 1 and message["role"] == "assistant"
        if is_continued and kinds[-1:] == ["text"] and blocks[-1]["text"][-1].isspace():
            yield f"final assistant content cannot end with trailing whitespace: {message}"
        if place and message["role"] == messages[place - 1]["role"]:
            yield f"two messages of one role: {message}"
    if calls:
        yield f"the calls {calls} have no results"
    if taken and not body.get("tools"):
        yield "Requests which include tool_use or tool_result blocks must define tools"


def ollama_faults(body: dict[str, Any]) -> Iterator[str]:
    """Yields what Ollama refuses of a request's messages: what its types do not read."""
    yield from _json_faults(body)
    if not body["messages"]:
        yield "no messages: the model would be loaded, and nothing answered"
    for message in body["messages"]:
        if not isinstance(message["content"], str):
            yield f"content: {message}"
        for call in message.get("tool_calls", []):
            if not isinstance(call["function"]["arguments"], dict) or not call["function"]["name"]:
                yield f"the call {call}"


def _json_faults(body: dict[str, Any]) -> Iterator[str]:
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, UnicodeEncodeError) as error:
        yield f"it is not JSON in UTF-8: {error}"
