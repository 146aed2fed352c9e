"""The arguments of a Python call -> the contract's requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import _check, _parameters
from abstractllm_client._enum_codec import PARAMETERS_POLICIES, ROLES, TOOL_CHOICE_MODES
from abstractllm_client.errors import InvalidRequestError
from abstractllm_client.messages import (
    ChatMessage,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    RegexFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from abstractllm_client.options import GenerationOptions

OPTIONS = tuple(
    name
    for name in GenerationOptions.__annotations__
    if name not in (*_parameters.NAMES, *_parameters.OTHER_NAMES, "timeout")
)
"""The names of the options of a call beside generation parameters and its timeout."""


def generate_request(
    llm: str, prompt: object, system_prompt: str | None, options: Mapping[str, Any]
) -> pb.GenerateRequest:
    """Encodes a call of `generate`. The server checks the ranges of the values.

    Args:
        llm: The LLM's name; empty for the server's default.
        prompt: A string, or a list of messages.
        system_prompt: Replaces the conversation's system message, where set.
        options: Generation parameters and `OPTIONS` by name; `None` counts as unset.

    Raises:
        UnsupportedParameterError: For a name that is not known.
        InvalidRequestError: For a value of the wrong type, or text that is not Unicode.
    """
    rest = {name: value for name, value in options.items() if value is not None}
    request = pb.GenerateRequest(llm=_check.text(llm, "llm"))
    _set_input(request, prompt, system_prompt)
    if "response_format" in rest:
        request.response_format.CopyFrom(_format(rest.pop("response_format")))
    request.tools.extend(_tools(rest.pop("tools", ())))
    if "tool_choice" in rest:
        request.tool_choice.CopyFrom(_tool_choice(rest.pop("tool_choice")))
    if "provider_options" in rest:
        request.provider_options.update(_provider_options(rest.pop("provider_options")))
    request.request_id = _check.text(rest.pop("request_id", ""), "request_id")
    request.labels.update(_labels(rest.pop("labels", {})))
    if "parameters_policy" in rest:
        policy = rest.pop("parameters_policy")
        request.parameters_policy = PARAMETERS_POLICIES.encode(policy, "parameters_policy")
    if rest:
        request.parameters.CopyFrom(_parameters.encode(rest))
    return request


def count_tokens_request(
    llm: str, prompt: object, system_prompt: str | None, tools: object, model: str | None
) -> pb.CountTokensRequest:
    """Encodes a call of `count_tokens`; arguments and errors as `generate_request`."""
    request = pb.CountTokensRequest(llm=_check.text(llm, "llm"))
    _set_input(request, prompt, system_prompt)
    request.tools.extend(_tools(tools))
    if model is not None:
        request.model = _check.text(model, "model")
    return request


def _set_input(request: pb.GenerateRequest | pb.CountTokensRequest, prompt: object, system_prompt: object) -> None:
    if isinstance(prompt, str):
        request.prompt = _check.text(prompt, "prompt")
    elif isinstance(prompt, list | tuple):
        request.chat.SetInParent()
        request.chat.messages.extend(_message(message, index) for index, message in enumerate(prompt))
    else:
        raise InvalidRequestError(
            "prompt must be a string or a list of messages", field="prompt", requested=type(prompt).__name__
        )
    if system_prompt is not None:
        request.system_prompt = _check.text(system_prompt, "system_prompt")


def _message(message: object, index: int) -> pb.ChatMessage:
    path = f"chat.messages[{index}]"
    if isinstance(message, ChatMessage):
        role, parts = message.role, message.parts
    elif isinstance(message, Mapping) and set(message) == {"role", "content"}:
        role, content = message["role"], message["content"]
        if content is None and role == "assistant":
            content = ()  # as OpenAI's API gives it
        parts = (Text(content),) if isinstance(content, str) else content
    else:
        raise InvalidRequestError(f"{path} must be a ChatMessage or have the keys role and content", field=path)
    if not isinstance(parts, list | tuple):
        raise _check.refuse(f"{path}.parts", "must be a sequence of parts", parts)
    return pb.ChatMessage(
        role=ROLES.encode(role, f"{path}.role"),
        parts=[_part(part, f"{path}.parts[{position}]") for position, part in enumerate(parts)],
    )


def _part(part: object, path: str) -> pb.Part:
    match part:
        case Text():
            message = pb.Part(text=_check.text(part.text, f"{path}.text"))
        case Reasoning():
            text = _check.text(part.text, f"{path}.reasoning.text")
            message = pb.Part(reasoning=pb.Reasoning(text=text))
        case Image():
            mime_type = _check.text(part.mime_type, f"{path}.image.mime_type")
            data = _bytes(part.data, f"{path}.image.data")
            message = pb.Part(image=pb.Image(data=data, mime_type=mime_type))
        case ToolCall():
            path = f"{path}.tool_call"
            call = pb.ToolCall(
                id=_check.text(part.id, f"{path}.id"),
                name=_check.text(part.name, f"{path}.name"),
                arguments_json=_check.text(part.arguments_json, f"{path}.arguments_json"),
            )
            message = pb.Part(tool_call=call)
        case ToolResult():
            path = f"{path}.tool_result"
            result = pb.ToolResult(
                tool_call_id=_check.text(part.tool_call_id, f"{path}.tool_call_id"),
                content=_check.text(part.content, f"{path}.content"),
                is_error=bool(part.is_error),
            )
            message = pb.Part(tool_result=result)
        case _:
            raise _check.refuse(path, "must be a part of a message", part)
    message.provider_state = _bytes(part.provider_state, f"{path}.provider_state")
    return message


def _bytes(value: object, path: str) -> bytes:
    if not isinstance(value, bytes):
        raise _check.refuse(path, "must be bytes", type(value).__name__)
    return value


def _format(form: object) -> pb.ResponseFormat:
    match form:
        case JsonObjectFormat():
            return pb.ResponseFormat(json_object=pb.JsonObjectFormat())
        case JsonSchemaFormat():
            path = "response_format.json_schema"
            schema = pb.JsonSchemaFormat(
                name=_check.text(form.name, f"{path}.name"),
                schema_json=_check.text(form.schema_json, f"{path}.schema_json"),
                strict=form.strict,
            )
            return pb.ResponseFormat(json_schema=schema)
        case RegexFormat():
            return pb.ResponseFormat(regex=_check.text(form.regex, "response_format.regex"))
        case GrammarFormat():
            return pb.ResponseFormat(grammar=_check.text(form.grammar, "response_format.grammar"))
    raise _check.refuse("response_format", "must be one of the *Format types", form)


def _tools(tools: object) -> list[pb.Tool]:
    if not isinstance(tools, list | tuple):
        raise _check.refuse("tools", "must be a list of Tool", tools)
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _tool(tool: object, path: str) -> pb.Tool:
    if not isinstance(tool, Tool):
        raise _check.refuse(path, "must be a Tool", tool)
    return pb.Tool(
        name=_check.text(tool.name, f"{path}.name"),
        description=_check.text(tool.description, f"{path}.description"),
        parameters_json_schema=_check.text(tool.parameters_json_schema, f"{path}.parameters_json_schema"),
    )


def _tool_choice(choice: object) -> pb.ToolChoice:
    if not isinstance(choice, ToolChoice):
        raise _check.refuse("tool_choice", "must be a ToolChoice", choice)
    if choice.name is not None:
        return pb.ToolChoice(name=_check.text(choice.name, "tool_choice.name"))
    if choice.mode is not None:
        return pb.ToolChoice(mode=TOOL_CHOICE_MODES.encode(choice.mode, "tool_choice.mode"))
    return pb.ToolChoice()


def _provider_options(options: object) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise _check.refuse("provider_options", "must be a mapping", options)
    plain: dict[str, Any] = _check.plain(options, "provider_options")
    return plain


def _labels(labels: object) -> dict[str, str]:
    if not isinstance(labels, Mapping):
        raise _check.refuse("labels", "must be a mapping", labels)
    return {_check.text(key, "labels"): _check.text(value, f"labels.{key}") for key, value in labels.items()}
