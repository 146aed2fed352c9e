"""Writing a request for Ollama's `/api/chat`.

The format: https://docs.ollama.com/api/chat and `api/types.go` of https://github.com/ollama/ollama.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from abstractllm.enums import ReasoningEffort, Role, ToolChoiceMode
from abstractllm.errors import UnsupportedFeatureError, UnsupportedParameterError
from abstractllm.providers.hosted.history import CallIds, answered_calls, result_text
from abstractllm.providers.hosted.provider_options import checked_options
from abstractllm.providers.ollama.config import OllamaConfig
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    ChatMessage,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    ToolCall,
    ToolResult,
)
from abstractllm.validation import json_object

__all__ = ["OPTIONS", "PARAMETERS", "PROVIDER_OPTIONS", "chat_body"]

OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "max_tokens": "num_predict",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
    "stop": "stop",
}
"""The names of the generation parameters in `options`."""
PARAMETERS = (*OPTIONS, "top_logprobs")
"""The parameters that every model takes; those that think take `reasoning_effort`, too."""
_CALL_IDS = CallIds(r"[!-~]+", 24)
_NUMBER = (int, float)
PROVIDER_OPTIONS: dict[str, tuple[type, ...]] = {
    "keep_alive": (int, float, str),
    "num_batch": (int,),
    "num_ctx": (int,),
    "num_gpu": (int,),
    "num_keep": (int,),
    "num_thread": (int,),
    "repeat_last_n": (int,),
    "think": (bool, str),
    "typical_p": _NUMBER,
}
"""The settings that a request may make by Ollama's name for them, and their types."""
_TOP_LEVEL = ("keep_alive", "think")
_THINK: dict[ReasoningEffort, bool | str] = {
    ReasoningEffort.NONE: False,
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
    ReasoningEffort.XHIGH: "max",
}
"""Models that either think or do not take every level for `true`; older servers refuse `max`."""


def chat_body(request: GenerationRequest, config: OllamaConfig) -> dict[str, Any]:
    """Returns the body of the request.

    Raises:
        InvalidRequestError: For a provider option of the wrong type.
        UnsupportedParameterError: For a reasoning effort that Ollama has no level for.
        UnsupportedFeatureError: For a tool choice that the API cannot express.
    """
    parameters = request.parameters
    provider_options = checked_options(request.provider_options, PROVIDER_OPTIONS)
    options = {
        name: value for parameter, name in OPTIONS.items() if (value := getattr(parameters, parameter)) is not None
    } | {name: value for name, value in provider_options.items() if name not in _TOP_LEVEL}
    body: dict[str, Any] = {
        "model": parameters.model,
        "messages": _messages(request.conversation()),
        "stream": True,
        # By default the server silently cuts a prompt or an answer that does not fit its context.
        "truncate": False,
        "shift": False,
    }
    if options:
        body["options"] = options
    if tools := _tools(request):
        body["tools"] = tools
    match request.response_format:
        case JsonObjectFormat():
            body["format"] = "json"
        case JsonSchemaFormat(schema_json=schema):
            body["format"] = json.loads(schema)
    if parameters.reasoning_effort is not None:
        body["think"] = _think(parameters.reasoning_effort)
    if parameters.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": parameters.top_logprobs}
    if config.keep_alive is not None:
        body["keep_alive"] = config.keep_alive
    return body | {name: provider_options[name] for name in _TOP_LEVEL if name in provider_options}


def _think(effort: ReasoningEffort) -> bool | str:
    if effort not in _THINK:
        known = ", ".join(_THINK)
        raise UnsupportedParameterError(
            f"parameters.reasoning_effort: Ollama takes {known}, got {effort}",
            field="parameters.reasoning_effort",
            limit=known,
            requested=str(effort),
        )
    return _THINK[effort]


def _tools(request: GenerationRequest) -> list[dict[str, Any]]:
    """Returns the tools; none if none may be called. The API can neither force a call nor choose a tool."""
    choice = request.tool_choice
    if choice is not None and (choice.name is not None or choice.mode is ToolChoiceMode.REQUIRED):
        field = "tool_choice.name" if choice.name is not None else "tool_choice.mode"
        raise UnsupportedFeatureError(
            f"{field}: Ollama cannot be made to call a tool", field=field, limit="auto, none", requested=choice.name
        )
    if choice is not None and choice.mode is ToolChoiceMode.NONE:
        return []
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": {"type": "object"} | json.loads(tool.parameters_json_schema),
            },
        }
        for tool in request.tools
    ]


def _messages(conversation: tuple[ChatMessage, ...]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in answered_calls(conversation, _CALL_IDS):
        turn: dict[str, Any] = {"role": str(message.role), "content": message.text}
        results: list[dict[str, Any]] = []
        for part in message.parts:
            match part:
                case Image(data=data):
                    turn.setdefault("images", []).append(base64.b64encode(data).decode("ascii"))
                case Reasoning(text=text) if text:
                    turn["thinking"] = turn.get("thinking", "") + text
                case ToolCall(id=call_id, name=name, arguments_json=arguments):
                    names[call_id] = name
                    function = {"name": name, "arguments": json_object(arguments)}
                    turn.setdefault("tool_calls", []).append({"id": call_id, "function": function})
                case ToolResult():
                    results.append(_result(part, names.get(part.tool_call_id, "")))
        # Each result is a message of its own; one with nothing else leaves no empty message behind.
        if turn["content"] or len(turn) > 2 or not results:
            turns.append(turn)
        turns += results
    return turns


def _result(result: ToolResult, name: str) -> dict[str, Any]:
    turn = {"role": str(Role.TOOL), "content": result_text(result), "tool_call_id": result.tool_call_id}
    return turn | {"tool_name": name} if name else turn
