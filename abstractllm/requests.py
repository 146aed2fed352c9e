"""One request to an LLM, its checks, and the making of one from a Python call."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from abstractllm._generated.parameters import ParameterOptions
from abstractllm.call_record import CallRecord
from abstractllm.errors import InvalidRequestError
from abstractllm.field_limits import FIELD_LIMITS, MAX_PROVIDER_OPTIONS
from abstractllm.parameters import GenerationParameters, parse_parameters
from abstractllm.types import (
    ChatMessage,
    GrammarFormat,
    Image,
    JsonSchemaFormat,
    ParametersPolicy,
    Part,
    Prompt,
    RegexFormat,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
)
from abstractllm.validation import at_most, check_text, is_unset, rename_keys, require

__all__ = ["GenerationOptions", "GenerationRequest", "as_messages", "make_request"]

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class GenerationOptions(ParameterOptions, total=False):
    """The options of `generate`, `complete` and `stream` beside the prompt; None means unset.

    Example:
        ```python
        def ask(llm: LLM, question: str, **options: Unpack[GenerationOptions]) -> str:
            return llm.generate(question, "Answer in one sentence.", **options)
        ```
    """

    max_new_tokens: int | None
    """Another name of `max_tokens`."""
    response_format: ResponseFormat | None
    """The form that the answer must have; free text if unset."""
    tools: Sequence[Tool] | None
    """The functions that the model may ask to be called, as a list or a tuple."""
    tool_choice: ToolChoice | None
    """The rule for calling tools, or the one tool that must be called."""
    provider_options: Mapping[str, object] | None
    """Settings of one provider, by the keys that the LLM's capabilities list."""
    request_id: str | None
    """The caller's id for logs, traces and errors, of at most 256 characters."""
    labels: Mapping[str, str] | None
    """The caller's labels for logs and traces, at most 32."""
    parameters_policy: ParametersPolicy | str | None
    """The treatment of parameters that the LLM does not support: they are refused (the default) or dropped."""
    timeout: float | None
    """Seconds that the whole answer may take, waiting and retries included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request to one LLM; exactly one of `prompt` and `messages` is set.

    `make_request` builds one from the arguments of a call and checks it. Its fields are those of `GenerationOptions`,
    the parameters under `parameters`, and the fields that only servers and other LLMs set: `whole`, `caller`,
    `retry`, `deadline`, `record`.

    Example:
        ```python
        request = make_request("What is the capital of France?", "Be brief.", temperature=0)
        assert request.parameters.temperature == 0
        assert [message.role for message in request.conversation()] == ["system", "user"]
        ```
    """

    prompt: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    system_prompt: str | None = None
    parameters: GenerationParameters = field(default_factory=GenerationParameters)
    response_format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    parameters_policy: ParametersPolicy = ParametersPolicy.REJECT
    timeout: float | None = None
    """Seconds in which the whole answer must be there."""
    whole: bool = False
    """True if the answer is read as a whole, so that a provider may give it in one piece."""
    caller: str = ""
    """The caller's name, for an LLM whose callers take turns; a server sets it, calls in this process share one."""
    retry: bool = True
    """True if the LLM may try again by itself, as often as it is configured to."""
    deadline: float | None = None
    """The time, on the clock of `time.monotonic`, at which the whole answer must be there; the LLM sets it."""
    record: CallRecord = field(default_factory=CallRecord, compare=False, repr=False)
    """The record of the call that the request came with, filled on its way; a server sets it."""

    def conversation(self) -> tuple[ChatMessage, ...]:
        """Returns the request as chat messages, the system prompt in its place.

        `system_prompt`, where set, replaces the conversation's own system messages; an empty one removes them.
        """
        messages = self.messages
        if self.prompt is not None:
            messages = (ChatMessage(Role.USER, (Text(self.prompt),)),)
        if self.system_prompt is None:
            return messages
        rest = tuple(message for message in messages if message.role is not Role.SYSTEM)
        if not self.system_prompt:
            return rest
        return (ChatMessage(Role.SYSTEM, (Text(self.system_prompt),)), *rest)

    def check(self) -> None:
        """Checks the rules that hold for every LLM.

        Raises:
            InvalidRequestError: Naming the field that is empty, malformed or over its limit.
        """
        if self.prompt is None:
            _check_messages(self.messages)
        else:
            require(bool(self.prompt), "prompt", "must not be empty", limit="at least 1 character", got="0 characters")
            check_text(self.prompt, "prompt")
        if self.system_prompt is not None:
            check_text(self.system_prompt, "system_prompt")
        _check_tools(self.tools)
        _check_tool_choice(self.tool_choice, self.tools)
        _check_format(self.response_format)
        _check_labels(self.labels)
        at_most(len(self.request_id), FIELD_LIMITS["GenerateRequest.request_id"].most, "request_id", "characters")
        at_most(len(self.provider_options), MAX_PROVIDER_OPTIONS, "provider_options", "keys")
        if (seconds := self.timeout) is not None:
            require(seconds > 0, "timeout", "must be greater than 0 seconds", limit="greater than 0", got=seconds)


def make_request(prompt: Prompt, system_prompt: str | None = None, **options: Any) -> GenerationRequest:
    """Builds a checked request from the arguments of a Python call.

    Args:
        prompt: A prompt, or a conversation.
        system_prompt: Replaces the conversation's own, where set.
        **options: Generation parameters by name, and any of `response_format`, `tools`, `tool_choice`,
            `provider_options`, `request_id`, `labels`, `parameters_policy`, `timeout`. `None`, an empty list and an
            empty mapping mean unset.

    Returns:
        A request for `AbstractLLMInterface.run`, `run_to_end` or `run_count`.

    Raises:
        InvalidRequestError: For a value that is malformed or out of range.
        UnsupportedParameterError: For a name that is not known.
    """
    options = {str(name): value for name, value in options.items() if not is_unset(value)}
    fields = {name: _read_option(name, options.pop(name)) for name in _OPTION_TYPES if name in options}
    if isinstance(prompt, str):
        fields["prompt"] = prompt
    else:
        fields["messages"] = as_messages(prompt)
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise InvalidRequestError(
            "system_prompt must be a string", field="system_prompt", requested=type(system_prompt).__name__
        )
    parameters = parse_parameters(rename_keys(options))
    request = GenerationRequest(system_prompt=system_prompt, parameters=parameters, **fields)
    request.check()
    return request


_OPTION_TYPES: dict[str, Any] = {
    "response_format": ResponseFormat,
    "tools": (list, tuple),
    "tool_choice": ToolChoice,
    "provider_options": Mapping,
    "request_id": str,
    "labels": Mapping,
    "parameters_policy": ParametersPolicy,
    "timeout": (int, float),
}
"""The options of a call that are no generation parameters, and the types of their values."""


def _read_option(name: str, value: Any) -> Any:
    if name == "parameters_policy" and value in list(ParametersPolicy):
        value = ParametersPolicy(value)
    if not isinstance(value, _OPTION_TYPES[name]):
        raise InvalidRequestError(f"{name} is malformed: {value!r:.80}", field=name, requested=f"{value!r:.80}")
    if name == "tools":
        for index, tool in enumerate(value):
            require(isinstance(tool, Tool), f"tools[{index}]", "must be a Tool", got=type(tool).__name__)
        return tuple(value)
    return value


def as_messages(prompt: Prompt) -> tuple[ChatMessage, ...]:
    """Turns a conversation, whose messages may be mappings `{"role": ..., "content": ...}`, into `ChatMessage`s.

    Raises:
        InvalidRequestError: For anything that is neither.
    """
    if isinstance(prompt, str):
        return (ChatMessage(Role.USER, (Text(prompt),)),)
    if not isinstance(prompt, (list, tuple)):
        raise InvalidRequestError(
            "prompt must be a string or a list of messages", field="prompt", requested=type(prompt).__name__
        )
    return tuple(_as_message(message, index) for index, message in enumerate(prompt))


def _as_message(message: object, index: int) -> ChatMessage:
    if isinstance(message, ChatMessage):
        return message
    path = f"chat.messages[{index}]"
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise InvalidRequestError(f"{path} must be a ChatMessage or have the keys role and content", field=path)
    try:
        role = Role(message["role"])
    except ValueError:
        raise InvalidRequestError(
            f"{path}.role must be one of {', '.join(Role)}", field=f"{path}.role", requested=message["role"]
        ) from None
    content = message["content"]
    if content is None and role is Role.ASSISTANT:
        content = ()  # as OpenAI's API gives it
    kind = type(content).__name__
    require(isinstance(content, str | list | tuple), f"{path}.parts", "must be text or a sequence of parts", got=kind)
    parts: tuple[Part, ...] = (Text(content),) if isinstance(content, str) else tuple(content)
    return ChatMessage(role, parts)


def _check_messages(messages: Sequence[ChatMessage]) -> None:
    require(bool(messages), "prompt", "a prompt or a chat with messages is required", got="nothing")
    at_most(len(messages), FIELD_LIMITS["Chat.messages"].most, "chat.messages", "messages")
    at_most(
        sum(len(message.parts) for message in messages),
        FIELD_LIMITS["ChatMessage.parts"].most,
        "chat.messages",
        "parts",
    )
    for index, message in enumerate(messages):
        path = f"chat.messages[{index}]"
        require(isinstance(message.role, Role), f"{path}.role", "must be a role", got=message.role)
        # An answer may hold nothing, and goes back as it came.
        has_parts = bool(message.parts) or message.role is Role.ASSISTANT
        require(has_parts, f"{path}.parts", "must not be empty", got="nothing")
        for place, part in enumerate(message.parts):
            _check_part(part, message.role, f"{path}.parts[{place}]")
    require(
        messages[-1].role is not Role.SYSTEM,
        f"chat.messages[{len(messages) - 1}].role",
        "the last message must not be a system message",
        got=str(messages[-1].role),
    )


def _check_part(part: Part, role: Role, path: str) -> None:
    match part:
        case Image():
            _check_image(part, role, f"{path}.image")
        case ToolCall():
            # As the model wrote them: a name that is no tool's and arguments that are cut off go back, too.
            for name in ("id", "name", "arguments_json"):
                check_text(getattr(part, name), f"{path}.tool_call.{name}")
        case ToolResult():
            require(bool(part.tool_call_id), f"{path}.tool_result.tool_call_id", "must not be empty", got="nothing")
            check_text(part.tool_call_id, f"{path}.tool_result.tool_call_id")
            check_text(part.content, f"{path}.tool_result.content")
        case _:
            require(isinstance(part, Part), path, "must be a part of a message", got=type(part).__name__)
            check_text(part.text, f"{path}.text")


def _check_image(image: Image, role: Role, path: str) -> None:
    require(role is Role.USER, path, "only a user's message may hold an image", got=role)
    types = f"must be one of {', '.join(IMAGE_TYPES)}"
    require(image.mime_type in IMAGE_TYPES, f"{path}.mime_type", types, got=image.mime_type[:80])
    require(bool(image.data), f"{path}.data", "must not be empty", got="0 bytes")


def _check_tools(tools: Sequence[Tool]) -> None:
    at_most(len(tools), FIELD_LIMITS["GenerateRequest.tools"].most, "tools", "tools")
    names = [tool.name for tool in tools]
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        is_name = re.fullmatch(r"(?=.*[A-Za-z0-9])[A-Za-z0-9_-]{1,64}", tool.name) is not None
        require(is_name, f"{path}.name", "must be 1 to 64 letters, digits, _ or -", got=tool.name[:80])
        require(names.index(tool.name) == index, f"{path}.name", "must be unique", got=tool.name)
        _check_schema(tool.parameters_json_schema, f"{path}.parameters_json_schema")


def _check_tool_choice(choice: ToolChoice | None, tools: Sequence[Tool]) -> None:
    if choice is None:
        return
    if choice.name is not None:
        is_tool = any(tool.name == choice.name for tool in tools)
        require(is_tool, "tool_choice.name", "must name one of the request's tools", got=choice.name[:80])
    can_call = bool(tools) or choice.mode is not ToolChoiceMode.REQUIRED
    require(can_call, "tool_choice.mode", "requires tools", got=choice.mode)


def _check_format(response_format: ResponseFormat | None) -> None:
    match response_format:
        case JsonSchemaFormat(schema_json=schema):
            _check_schema(schema, "response_format.json_schema.schema_json")
        case RegexFormat(regex=pattern):
            require(bool(pattern), "response_format.regex", "must not be empty", got="nothing")
            at_most(len(pattern), FIELD_LIMITS["ResponseFormat.regex"].most, "response_format.regex", "characters")
        case GrammarFormat(grammar=grammar):
            require(bool(grammar), "response_format.grammar", "must not be empty", got="nothing")
            at_most(len(grammar), FIELD_LIMITS["ResponseFormat.grammar"].most, "response_format.grammar", "characters")


def _check_labels(labels: Mapping[str, str]) -> None:
    limit = FIELD_LIMITS["GenerateRequest.labels"]
    at_most(len(labels), limit.most, "labels", limit.unit)
    for key, value in labels.items():
        at_most(max(len(key), len(value)), limit.each or limit.most, f"labels.{key[:64]}", "characters")


def _check_schema(text: str, path: str) -> None:
    at_most(len(text), FIELD_LIMITS["JsonSchemaFormat.schema_json"].most, path, "characters")
    try:
        value = json.loads(text, parse_float=_finite_number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path} is not JSON: {error}", field=path, requested=text[:80]) from None
    require(isinstance(value, dict), path, "must be a JSON object", got=type(value).__name__)
    check_text(json.dumps(value, ensure_ascii=False), path)


def _finite_number(text: str) -> float:
    """Reads a number as all providers are sent it."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond the numbers of 64 bits with a floating point")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no value of it")
