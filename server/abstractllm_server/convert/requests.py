"""Requests: from the contract's messages to the library's values, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abstractllm.call_record import CallRecord
from abstractllm.enums import ParametersPolicy
from abstractllm.parameters import parse_parameters
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    ChatMessage,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    Part,
    Reasoning,
    RegexFormat,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.fields import invalid, read_enum, read_fields, read_struct

__all__ = ["count_request", "generation_request"]


def generation_request(
    message: pb.GenerateRequest, timeout: float | None, record: CallRecord | None = None
) -> GenerationRequest:
    """Decodes and checks a request.

    Args:
        message: The request.
        timeout: Seconds until the call's deadline; None without one.
        record: The record of the call, for the LLM to fill.

    Raises:
        InvalidRequestError: Naming the field.
    """
    policy = read_enum(pb.ParametersPolicy.DESCRIPTOR, message.parameters_policy, "parameters_policy")
    request = GenerationRequest(
        **_input(message),
        parameters=parse_parameters(read_fields(message.parameters, "parameters")),
        response_format=_response_format(message),
        tools=_tools(message.tools),
        tool_choice=_tool_choice(message),
        provider_options=read_struct(message.provider_options, "provider_options"),
        request_id=message.request_id,
        labels=dict(message.labels),
        parameters_policy=policy or ParametersPolicy.REJECT,
        timeout=_positive(timeout),
        **_call(record),
    )
    request.check()
    return request


def count_request(
    message: pb.CountTokensRequest, timeout: float | None, record: CallRecord | None = None
) -> GenerationRequest:
    """Decodes and checks the request whose prompt tokens are to be counted; errors as `generation_request`."""
    model = {"model": message.model} if message.HasField("model") else {}
    request = GenerationRequest(
        **_input(message),
        parameters=parse_parameters(model, ""),
        tools=_tools(message.tools),
        timeout=_positive(timeout),
        **_call(record),
    )
    request.check()
    return request


def _call(record: CallRecord | None) -> dict[str, Any]:
    return {} if record is None else {"caller": record.caller, "record": record}


def _positive(timeout: float | None) -> float | None:
    """Returns a span that is more than zero: a deadline that has just passed is not a malformed one."""
    return None if timeout is None else max(timeout, 0.001)


def _input(message: pb.GenerateRequest | pb.CountTokensRequest) -> dict[str, Any]:
    values: dict[str, Any] = {"system_prompt": message.system_prompt if message.HasField("system_prompt") else None}
    if message.WhichOneof("input") == "prompt":
        values["prompt"] = message.prompt
    else:
        values["messages"] = tuple(
            _chat_message(item, f"chat.messages[{index}]") for index, item in enumerate(message.chat.messages)
        )
    return values


def _chat_message(message: pb.ChatMessage, path: str) -> ChatMessage:
    role = read_enum(pb.Role.DESCRIPTOR, message.role, f"{path}.role")
    if role is None:
        raise invalid(f"{path}.role", "must be set", "ROLE_UNSPECIFIED")
    parts = tuple(_part(part, f"{path}.parts[{index}]") for index, part in enumerate(message.parts))
    return ChatMessage(role, parts)


def _part(part: pb.Part, path: str) -> Part:
    state = part.provider_state
    match part.WhichOneof("part"):
        case "text":
            return Text(part.text, state)
        case "image":
            return Image(part.image.data, part.image.mime_type, state)
        case "tool_call":
            return ToolCall(part.tool_call.id, part.tool_call.name, part.tool_call.arguments_json, state)
        case "tool_result":
            result = part.tool_result
            return ToolResult(result.tool_call_id, result.content, result.is_error, state)
        case "reasoning":
            return Reasoning(part.reasoning.text, state)
        case _:
            raise invalid(f"{path}.part", "must be set to a kind that this server knows", "nothing")


def _response_format(message: pb.GenerateRequest) -> ResponseFormat | None:
    if not message.HasField("response_format"):
        return None
    response_format = message.response_format
    match response_format.WhichOneof("format"):
        case "json_object":
            return JsonObjectFormat()
        case "json_schema":
            schema = response_format.json_schema
            return JsonSchemaFormat(
                schema.schema_json, schema.name, schema.strict if schema.HasField("strict") else None
            )
        case "regex":
            return RegexFormat(response_format.regex)
        case "grammar":
            return GrammarFormat(response_format.grammar)
        case _:
            raise invalid("response_format.format", "must be set to a kind that this server knows", "nothing")


def _tools(tools: Sequence[pb.Tool]) -> tuple[Tool, ...]:
    return tuple(Tool(tool.name, tool.description, tool.parameters_json_schema or "{}") for tool in tools)


def _tool_choice(message: pb.GenerateRequest) -> ToolChoice | None:
    choice = message.tool_choice
    match choice.WhichOneof("choice"):
        case "name":
            return ToolChoice(name=choice.name)
        case "mode":
            mode = read_enum(pb.ToolChoiceMode.DESCRIPTOR, choice.mode, "tool_choice.mode")
            return ToolChoice(mode) if mode else None
        case _ if message.HasField("tool_choice"):
            raise invalid("tool_choice.choice", "must be set", "nothing")
        case _:
            return None
