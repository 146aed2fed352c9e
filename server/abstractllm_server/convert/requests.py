"""Between the contract's messages and the library's types, requests in."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import EnumDescriptor

from abstractllm.enums import ParametersPolicy, ReasoningEffort, Role, ToolChoiceMode
from abstractllm.errors import InvalidRequestError
from abstractllm.parameters import MAX_LOGIT_BIASES, MAX_STOPS, GenerationParameters, parse_parameters
from abstractllm.requests import (
    MAX_LABELS,
    MAX_MESSAGES,
    MAX_PARTS,
    MAX_PROVIDER_OPTIONS,
    MAX_TOOLS,
    GenerationRequest,
    at_most,
)
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

__all__ = ["count_request", "generation_request", "parameter_values", "struct_values"]

_MAX_OPTIONS_BYTES = 262_144


def generation_request(message: pb.GenerateRequest, timeout: float | None, caller: str = "") -> GenerationRequest:
    """Decodes and checks a request.

    Args:
        message: The request.
        timeout: Seconds until the call's deadline; None without one.
        caller: Who asks.

    Raises:
        InvalidRequestError: Naming the field.
    """
    at_most(len(message.labels), MAX_LABELS, "labels", "labels")
    policy = _enum(pb.ParametersPolicy.DESCRIPTOR, message.parameters_policy, "parameters_policy")
    request = GenerationRequest(
        **_input(message),
        parameters=parameters(message.parameters),
        response_format=_response_format(message),
        tools=_tools(message.tools),
        tool_choice=_tool_choice(message),
        provider_options=struct_values(message.provider_options, "provider_options"),
        request_id=message.request_id,
        labels=dict(message.labels),
        parameters_policy=ParametersPolicy[policy] if policy else ParametersPolicy.REJECT,
        timeout=_left(timeout),
        caller=caller,
    )
    request.check()
    return request


def count_request(message: pb.CountTokensRequest, timeout: float | None, caller: str = "") -> GenerationRequest:
    """Decodes and checks the request whose prompt tokens are to be counted; errors as `generation_request`."""
    chosen = GenerationParameters()
    if message.HasField("model"):
        chosen = parse_parameters({"model": message.model}, "")
    request = GenerationRequest(
        **_input(message),
        parameters=chosen,
        tools=_tools(message.tools),
        timeout=_left(timeout),
        caller=caller,
    )
    request.check()
    return request


def _left(timeout: float | None) -> float | None:
    """Never zero: a deadline that has just passed is not a malformed one."""
    return None if timeout is None else max(timeout, 0.001)


def parameters(message: pb.GenerationParameters) -> GenerationParameters:
    """Decodes and checks generation parameters."""
    return parse_parameters(parameter_values(message, "parameters"))


def parameter_values(message: pb.GenerationParameters, path: str) -> dict[str, Any]:
    """The generation parameters that a message sets, by name, not yet checked for their range."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        match field.name:
            case "stop":
                at_most(len(value), MAX_STOPS, f"{path}.stop", "items")
                values["stop"] = tuple(value)
            case "logit_bias":
                at_most(len(value), MAX_LOGIT_BIASES, f"{path}.logit_bias", "items")
                values["logit_bias"] = dict(value)
            case "reasoning_effort":
                name = _enum(pb.ReasoningEffort.DESCRIPTOR, value, f"{path}.reasoning_effort")
                values["reasoning_effort"] = ReasoningEffort[name] if name else None
            case name:
                values[name] = value
    return values


def struct_values(message: struct_pb2.Struct, path: str) -> dict[str, Any]:
    """A Struct as plain values; its whole numbers become integers.

    Raises:
        InvalidRequestError: For a number that is not finite, and for too large a Struct.
    """
    at_most(len(message.fields), MAX_PROVIDER_OPTIONS, path, "keys")
    at_most(message.ByteSize(), _MAX_OPTIONS_BYTES, path, "bytes")
    return _plain_fields(message, path)


def _plain_fields(message: struct_pb2.Struct, path: str) -> dict[str, Any]:
    return {key: _plain(value, f"{path}.{key}") for key, value in message.fields.items()}


def _plain(value: struct_pb2.Value, path: str) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise _refusal(path, "must be finite", number)
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _plain_fields(value.struct_value, path)
        case "list_value":
            return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value.list_value.values)]
        case _:
            return None


def _input(message: pb.GenerateRequest | pb.CountTokensRequest) -> dict[str, Any]:
    values: dict[str, Any] = {"system_prompt": message.system_prompt if message.HasField("system_prompt") else None}
    if message.WhichOneof("input") == "prompt":
        values["prompt"] = message.prompt
    else:
        # Counted before they are decoded one by one, which would hold up everybody for seconds.
        at_most(len(message.chat.messages), MAX_MESSAGES, "chat.messages", "messages")
        at_most(sum(len(item.parts) for item in message.chat.messages), MAX_PARTS, "chat.messages", "parts")
        values["messages"] = tuple(
            _chat_message(item, f"chat.messages[{index}]") for index, item in enumerate(message.chat.messages)
        )
    return values


def _chat_message(message: pb.ChatMessage, path: str) -> ChatMessage:
    role = _enum(pb.Role.DESCRIPTOR, message.role, f"{path}.role")
    if not role:
        raise _refusal(f"{path}.role", "must be set", "ROLE_UNSPECIFIED")
    parts = tuple(_part(part, f"{path}.parts[{index}]") for index, part in enumerate(message.parts))
    return ChatMessage(Role[role], parts)


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
            raise _refusal(f"{path}.part", "must be set to a kind that this server knows", "nothing")


def _response_format(message: pb.GenerateRequest) -> ResponseFormat | None:
    if not message.HasField("response_format"):
        return None
    found = message.response_format
    match found.WhichOneof("format"):
        case "json_object":
            return JsonObjectFormat()
        case "json_schema":
            schema = found.json_schema
            return JsonSchemaFormat(
                schema.schema_json, schema.name, schema.strict if schema.HasField("strict") else None
            )
        case "regex":
            return RegexFormat(found.regex)
        case "grammar":
            return GrammarFormat(found.grammar)
        case _:
            raise _refusal("response_format.format", "must be set to a kind that this server knows", "nothing")


def _tools(tools: Any) -> tuple[Tool, ...]:
    at_most(len(tools), MAX_TOOLS, "tools", "tools")
    return tuple(Tool(tool.name, tool.description, tool.parameters_json_schema or "{}") for tool in tools)


def _tool_choice(message: pb.GenerateRequest) -> ToolChoice | None:
    choice = message.tool_choice
    match choice.WhichOneof("choice"):
        case "name":
            return ToolChoice(name=choice.name)
        case "mode":
            mode = _enum(pb.ToolChoiceMode.DESCRIPTOR, choice.mode, "tool_choice.mode")
            return ToolChoice(ToolChoiceMode[mode]) if mode else None
        case _ if message.HasField("tool_choice"):
            raise _refusal("tool_choice.choice", "must be set", "nothing")
        case _:
            return None


def _enum(enum: EnumDescriptor, number: int, path: str) -> str:
    """The name of an enum's value without its prefix; empty for the unspecified one."""
    value = enum.values_by_number.get(number)
    if value is None:
        raise _refusal(path, f"must be one of {', '.join(enum.values_by_name)}", number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix) if number else ""


def _refusal(path: str, rule: str, got: object) -> InvalidRequestError:
    return InvalidRequestError(f"{path}: {rule}, got {got}", field=path, limit=rule, requested=got)
