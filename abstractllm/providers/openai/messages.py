"""Writing a request for Chat Completions.

The format: https://developers.openai.com/api/reference/resources/chat
"""

from __future__ import annotations

import base64
import json
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.openai.config import OpenAIConfig
from abstractllm.providers.openai.models import WITHOUT_REASONING
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    ChatMessage,
    Image,
    JsonSchemaFormat,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)

__all__ = ["PROVIDER_OPTIONS", "as_body", "as_messages", "as_tools"]

PROVIDER_OPTIONS = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
)
"""Further fields of the body that a request may set; none of them can change the model or the conversation."""

_OTHER_FORM = ("model", "max_tokens", "stop", "logit_bias", "top_logprobs")
"""Parameters that the body has under another name or in another form; the others stand in it as they are."""


def as_body(request: GenerationRequest, config: OpenAIConfig) -> dict[str, Any]:
    """Returns the body of a request: for a streamed answer, unless the answer is read as a whole.

    Raises:
        InvalidRequestError: For a message that the format cannot express, or parameters that exclude each other.
    """
    parameters = request.parameters.set_fields()
    model = parameters["model"]
    _check_effort(parameters, config, model)
    body = _sampling(parameters, config)
    if request.tools:
        body["tools"] = as_tools(request)
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    return {
        **body,
        **request.provider_options,
        "model": model,
        "messages": as_messages(request),
        **({"stream": False} if request.whole else {"stream": True, "stream_options": {"include_usage": True}}),
        **config.extra_body,
    }


def _sampling(parameters: dict[str, Any], config: OpenAIConfig) -> dict[str, Any]:
    """Returns the fields of the body for generation parameters."""
    fields: dict[str, Any] = {name: value for name, value in parameters.items() if name not in _OTHER_FORM}
    if "max_tokens" in parameters:
        fields[config.token_limit_name] = parameters["max_tokens"]
    if "stop" in parameters:
        fields["stop"] = list(parameters["stop"])
    if "logit_bias" in parameters:
        fields["logit_bias"] = {str(token): bias for token, bias in parameters["logit_bias"].items()}
    if "top_logprobs" in parameters:
        fields["logprobs"] = True
        if parameters["top_logprobs"]:
            fields["top_logprobs"] = parameters["top_logprobs"]
    return fields


def _response_format(response_format: ResponseFormat) -> dict[str, Any]:
    if not isinstance(response_format, JsonSchemaFormat):
        return {"type": "json_object"}
    schema: dict[str, Any] = {
        "name": response_format.name or "answer",
        "schema": json.loads(response_format.schema_json),
    }
    if response_format.strict is not None:
        schema["strict"] = response_format.strict
    return {"type": "json_schema", "json_schema": schema}


def _check_effort(parameters: dict[str, Any], config: OpenAIConfig, model: str) -> None:
    effort = parameters.get("reasoning_effort", ReasoningEffort.NONE)
    if not config.family(model).reasoning_is_optional or effort is ReasoningEffort.NONE:
        return
    for name in WITHOUT_REASONING:
        if name in parameters:
            raise InvalidRequestError(
                f"parameters.{name}: {model} takes it only with reasoning_effort none, got {effort}",
                field=f"parameters.{name}",
                limit="only with reasoning_effort none",
                requested=f"with reasoning_effort {effort}",
            )


def as_messages(request: GenerationRequest) -> list[dict[str, Any]]:
    """Returns the conversation as the API's messages.

    The reasoning of earlier turns is left out, as the API has no place for it. A tool's error is marked by the word
    `Error:` before it.
    """
    messages: list[dict[str, Any]] = []
    for index, message in enumerate(request.conversation()):
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for result in results:
            content = f"Error: {result.content}" if result.is_error else result.content
            messages.append({"role": "tool", "tool_call_id": result.tool_call_id, "content": content})
        match message.role:
            case Role.ASSISTANT:
                messages.append(_assistant(message))
            case Role.TOOL:
                if len(results) < len(message.parts):
                    raise _misplaced(index, "a tool's message may hold tool results only")
            case _ if len(results) < len(message.parts):
                messages.append({"role": str(message.role), "content": _content(message, index)})
    return messages


def _assistant(message: ChatMessage) -> dict[str, Any]:
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments_json}}
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    turn: dict[str, Any] = {"role": "assistant", "content": message.text or (None if calls else "")}
    return turn | {"tool_calls": calls} if calls else turn


def _content(message: ChatMessage, index: int) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, Image) for part in message.parts):
        if any(isinstance(part, ToolCall) for part in message.parts):
            raise _misplaced(index, "only the assistant's message may hold tool calls")
        return message.text
    content: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text():
                content.append({"type": "text", "text": part.text})
            case Image():
                url = f"data:{part.mime_type};base64,{base64.b64encode(part.data).decode()}"
                content.append({"type": "image_url", "image_url": {"url": url}})
            case ToolCall():
                raise _misplaced(index, "only the assistant's message may hold tool calls")
    return content


def _misplaced(index: int, rule: str) -> InvalidRequestError:
    field = f"chat.messages[{index}].parts"
    return InvalidRequestError(f"{field}: {rule}", field=field, limit=rule)


def as_tools(request: GenerationRequest) -> list[dict[str, Any]]:
    """Returns the tools as the API's functions."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": json.loads(tool.parameters_json_schema),
            },
        }
        for tool in request.tools
    ]


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return str(choice.mode or "auto")
