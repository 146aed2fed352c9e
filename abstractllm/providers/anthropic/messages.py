"""Writing a request for the Messages API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from abstractllm.enums import ReasoningEffort, Role, ToolChoiceMode
from abstractllm.errors import InvalidRequestError, UnsupportedParameterError
from abstractllm.providers.anthropic.models import UNKNOWN_MAX_TOKENS, Model, model_facts
from abstractllm.providers.hosted.history import CallIds, answered_calls
from abstractllm.providers.hosted.provider_options import checked_options
from abstractllm.requests import GenerationRequest
from abstractllm.types import ChatMessage, Image, JsonSchemaFormat, Part, Reasoning, Text, Tool, ToolCall, ToolResult
from abstractllm.validation import json_object

__all__ = [
    "PROVIDER_OPTIONS",
    "SAMPLING_PARAMETERS",
    "STATE_MARK",
    "count_arguments",
    "message_body",
    "version_headers",
]

SAMPLING_PARAMETERS = ("temperature", "top_p", "top_k")
SAMPLING_API_VERSION = "2023-06-01"
"""The last version of the API that knows sampling parameters (https://platform.claude.com/docs/en/api/versioning)."""
PROVIDER_OPTIONS: dict[str, tuple[type, ...]] = {
    "cache_control": (Mapping,),
    "effort": (str,),
    "inference_geo": (str,),
    "metadata": (Mapping,),
    "service_tier": (str,),
    "thinking": (Mapping,),
}
"""Arguments of the API that a request may set by their own name; `effort` stands for `output_config.effort`."""
STATE_MARK = b"anthropic:"
"""The beginning of `provider_state`, since a conversation may hold the state of other providers, too."""
_CALL_IDS = CallIds(r"[A-Za-z0-9_-]{1,64}", 24)
_THINKING = ("thinking", "redacted_thinking")
_COUNTED = ("messages", "model", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control")


def message_body(request: GenerationRequest, is_official: bool = True) -> dict[str, Any]:
    """Returns the body of a request to `/v1/messages`.

    Args:
        request: The request.
        is_official: True if it goes to Anthropic itself, not to a server that speaks its format.

    Raises:
        UnsupportedParameterError: For a reasoning effort that the model does not take.
        InvalidRequestError: For a value that the API cannot take.
    """
    parameters = request.parameters
    facts = model_facts(parameters.model or "")
    options = checked_options(request.provider_options, PROVIDER_OPTIONS)
    effort = options.pop("effort", None)
    system, messages = _conversation(request.conversation(), is_official)
    body: dict[str, Any] = {
        "model": parameters.model,
        "max_tokens": parameters.max_tokens or facts.max_output_tokens or UNKNOWN_MAX_TOKENS,
        "messages": messages,
        "stream": True,
    }
    if system:
        body["system"] = system
    if parameters.stop:
        body["stop_sequences"] = list(parameters.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if (choice := _tool_choice(request)) is not None:
            body["tool_choice"] = choice
    elif names := _called_tools(messages):
        # The API refuses calls in a conversation whose request has no tools.
        body["tools"] = [_tool(Tool(name)) for name in names]
        body["tool_choice"] = {"type": "none"}
    if parameters.reasoning_effort is not None:
        body |= _reasoning(parameters.reasoning_effort, facts)
    if isinstance(request.response_format, JsonSchemaFormat):
        schema = json.loads(request.response_format.schema_json)
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    if effort is not None:
        body.setdefault("output_config", {})["effort"] = effort
    return body | _sampling(request) | options


def version_headers(request: GenerationRequest) -> dict[str, str]:
    """Returns the header for the older version of the API, if the request needs it."""
    parameters = request.parameters.set_fields()
    return (
        {"anthropic-version": SAMPLING_API_VERSION} if any(name in parameters for name in SAMPLING_PARAMETERS) else {}
    )


def count_arguments(request: GenerationRequest, is_official: bool = True) -> dict[str, Any]:
    """Returns the arguments of `messages.count_tokens`; its own are those of `message_body`."""
    arguments = message_body(request, is_official)
    return {name: arguments[name] for name in _COUNTED if name in arguments}


def _reasoning(effort: ReasoningEffort, facts: Model) -> dict[str, Any]:
    if effort not in facts.reasoning_efforts:
        known = ", ".join(facts.reasoning_efforts)
        raise UnsupportedParameterError(
            f"parameters.reasoning_effort: the model takes {known}, got {effort}",
            field="parameters.reasoning_effort",
            limit=known,
            requested=str(effort),
        )
    if effort is ReasoningEffort.NONE:
        return {"thinking": {"type": facts.thinking_off}}
    fields: dict[str, Any] = {"output_config": {"effort": str(effort)}}
    if facts.adaptive:
        # Some models think only if the request says so, and newer ones send their reasoning's text only then.
        fields["thinking"] = {"type": "adaptive", "display": "summarized"}
    return fields


def _sampling(request: GenerationRequest) -> dict[str, Any]:
    values = {name: value for name in SAMPLING_PARAMETERS if (value := getattr(request.parameters, name)) is not None}
    if values.get("temperature", 0) > 1:
        raise InvalidRequestError(
            f"parameters.temperature: must be at most 1, got {values['temperature']}",
            field="parameters.temperature",
            limit="at most 1",
            requested=str(values["temperature"]),
        )
    if values.get("top_k") == 0:
        del values["top_k"]
    return values


def _tool(tool: Tool) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "name": tool.name,
        "input_schema": {"type": "object"} | json.loads(tool.parameters_json_schema),
    }
    if tool.description:
        definition["description"] = tool.description
    return definition


def _called_tools(messages: Iterable[dict[str, Any]]) -> list[str]:
    """Returns the names of the tools that were called in a conversation, each once."""
    blocks = (block for message in messages for block in message["content"])
    return list(dict.fromkeys(block["name"] for block in blocks if block["type"] == "tool_use"))


def _tool_choice(request: GenerationRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    if choice.name is not None:
        return {"type": "tool", "name": choice.name}
    match choice.mode:
        case ToolChoiceMode.REQUIRED:
            return {"type": "any"}
        case ToolChoiceMode.NONE:
            return {"type": "none"}
    return {"type": "auto"}


def _conversation(
    messages: Iterable[ChatMessage], is_official: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the system prompt's blocks, and the messages.

    Messages of one role in a row become one, in which the results of tools come first, as the API demands.

    Raises:
        InvalidRequestError: If nothing of the messages is left.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        for place, part in enumerate(message.parts):
            _check_state(part, f"chat.messages[{index}].parts[{place}]")
    for message in answered_calls(messages, _CALL_IDS):
        blocks = [block for part in message.parts if (block := _block(part, is_official)) is not None]
        if message.role is Role.ASSISTANT:
            blocks = _without_last_thoughts(blocks)
        role = {Role.SYSTEM: "system", Role.ASSISTANT: "assistant"}.get(message.role, "user")
        if role == "system" and not turns:
            system += blocks
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    _trim_end(turns)
    if not turns:
        raise InvalidRequestError(
            "chat.messages: there must be a text that is not only white space, an image or a call among them",
            field="chat.messages",
        )
    return system, turns


def _trim_end(turns: list[dict[str, Any]]) -> None:
    """Takes the white space from the end of an answer that is to be continued: the API refuses it."""
    if turns and turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        last["text"] = last["text"].rstrip()


def _block(part: Part, is_official: bool) -> dict[str, Any] | None:
    """Returns a part as a content block; None for blank text and other models' reasoning, which the API refuses."""
    match part:
        case Text(text=text):
            return {"type": "text", "text": text} if text.strip() else None
        case Image(data=data, mime_type=mime_type):
            encoded = base64.b64encode(data).decode("ascii")
            return {"type": "image", "source": {"type": "base64", "media_type": mime_type, "data": encoded}}
        case ToolCall(id=call_id, name=name, arguments_json=arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": json_object(arguments)}
        case ToolResult(tool_call_id=call_id, content=content, is_error=is_error):
            result: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id, "content": content}
            return result | {"is_error": True} if is_error else result
        case Reasoning():
            return _thinking(part, is_official)


def _without_last_thoughts(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns an answer's blocks without thinking at their end, where the API refuses it."""
    last = max((place for place, block in enumerate(blocks, 1) if block["type"] not in _THINKING), default=0)
    return blocks[:last]


def _thinking(part: Reasoning, is_official: bool) -> dict[str, Any] | None:
    """Returns reasoning as a block; None for another model's, as the API takes only what it has signed.

    Raises:
        ValueError: If its `provider_state` cannot be read.
    """
    if not part.provider_state.startswith(STATE_MARK):
        return None
    match json.loads(part.provider_state.removeprefix(STATE_MARK)):
        case {"type": "thinking", "signature": str(signature)}:
            # Servers that speak Anthropic's format may sign nothing.
            is_taken = bool(signature) or not is_official
            return {"type": "thinking", "thinking": part.text, "signature": signature} if is_taken else None
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "redacted_thinking", "data": data}
    raise ValueError("neither thinking nor redacted thinking")


def _check_state(part: Part, path: str) -> None:
    """Checks the `provider_state` of reasoning.

    Raises:
        InvalidRequestError: If it cannot be read.
    """
    try:
        if isinstance(part, Reasoning):
            _thinking(part, is_official=True)
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            f"{path}.provider_state: must be the bytes that came with the reasoning",
            field=f"{path}.provider_state",
            requested="other bytes",
        ) from None
