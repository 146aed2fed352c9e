"""A request in the library's own words, and how a Python call becomes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from abstractllm._core.validation import at_most, check_text, require
from abstractllm._generated.parameters import ParameterOptions
from abstractllm.errors import InvalidRequestError
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

__all__ = ["GenerationOptions", "GenerationRequest", "as_messages", "make_request"]

MAX_MESSAGES = 4096
MAX_PARTS = 8192
MAX_TOOLS = 128
MAX_SCHEMA_CHARACTERS = 65_536
MAX_LABELS = 32
MAX_LABEL_CHARACTERS = 256
MAX_PROVIDER_OPTIONS = 64
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class GenerationOptions(ParameterOptions, total=False):
    """The options of `generate`, `complete` and `stream` beside the prompt; None means unset.

    Example:
        def ask(llm: LLM, question: str, **options: Unpack[GenerationOptions]) -> str:
            return llm.generate(question, "Answer in one sentence.", **options)
    """

    response_format: ResponseFormat | None
    """The form that the answer must have; free text if unset."""
    tools: Sequence[Tool] | None
    """The functions that the model may ask to be called, as a list or a tuple."""
    tool_choice: ToolChoice | None
    """The rule for calling tools, or the one tool that must be called."""
    provider_options: Mapping[str, Any] | None
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
    """One request to one LLM. Exactly one of `prompt` and `messages` is set."""

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
    """Nobody reads the answer before it is complete, so a provider may give it in one piece."""
    caller: str = ""
    """Who asks, for an LLM whose callers take turns; set by a server, the same for all who ask in this process."""
    retry: bool = True
    """Whether the LLM may try again by itself, as often as it is configured to."""

    def conversation(self) -> tuple[ChatMessage, ...]:
        """The request as chat messages, the system prompt in its place.

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
        """Checks what holds for every LLM.

        Raises:
            InvalidRequestError: Naming the field that is empty, malformed or over its limit.
        """
        if self.prompt is not None:
            require(
                bool(self.prompt),
                "prompt",
                "must not be empty",
                limit="at least 1 character",
                got="0 characters",
            )
            check_text(self.prompt, "prompt")
        else:
            require(bool(self.messages), "prompt", "a prompt or a chat with messages is required", got="nothing")
            at_most(len(self.messages), MAX_MESSAGES, "chat.messages", "messages")
            at_most(sum(len(message.parts) for message in self.messages), MAX_PARTS, "chat.messages", "parts")
            for index, message in enumerate(self.messages):
                _check_message(message, f"chat.messages[{index}]")
            final = self.messages[-1].role
            require(
                final in (Role.USER, Role.TOOL, Role.ASSISTANT),
                f"chat.messages[{len(self.messages) - 1}].role",
                "the last message must not be a system message",
                got=str(final),
            )
        if self.system_prompt is not None:
            check_text(self.system_prompt, "system_prompt")
        self._check_tools()
        self._check_format()
        at_most(len(self.labels), MAX_LABELS, "labels", "labels")
        for key, value in self.labels.items():
            at_most(max(len(key), len(value)), MAX_LABEL_CHARACTERS, f"labels.{key[:64]}", "characters")
        at_most(len(self.request_id), MAX_LABEL_CHARACTERS, "request_id", "characters")
        at_most(len(self.provider_options), MAX_PROVIDER_OPTIONS, "provider_options", "keys")
        if self.timeout is not None:
            require(
                self.timeout > 0,
                "timeout",
                "must be greater than 0 seconds",
                limit="greater than 0",
                got=self.timeout,
            )

    def _check_tools(self) -> None:
        at_most(len(self.tools), MAX_TOOLS, "tools", "tools")
        names = [tool.name for tool in self.tools]
        for index, tool in enumerate(self.tools):
            path = f"tools[{index}]"
            require(
                0 < len(tool.name) <= 64
                and tool.name.replace("_", "").replace("-", "").isalnum()
                and tool.name.isascii(),
                f"{path}.name",
                "must be 1 to 64 letters, digits, _ or -",
                got=tool.name[:80],
            )
            require(names.index(tool.name) == index, f"{path}.name", "must be unique", got=tool.name)
            _check_schema(tool.parameters_json_schema, f"{path}.parameters_json_schema")
        choice = self.tool_choice
        if choice is None:
            return
        if choice.name is not None:
            require(
                choice.name in names,
                "tool_choice.name",
                "must name one of the request's tools",
                got=choice.name[:80],
            )
        require(
            bool(self.tools) or choice.mode is not ToolChoiceMode.REQUIRED,
            "tool_choice.mode",
            "requires tools",
            got=choice.mode,
        )

    def _check_format(self) -> None:
        match self.response_format:
            case JsonSchemaFormat(schema_json=schema):
                _check_schema(schema, "response_format.json_schema.schema_json")
            case RegexFormat(regex=pattern):
                require(bool(pattern), "response_format.regex", "must not be empty", got="nothing")
                at_most(len(pattern), MAX_SCHEMA_CHARACTERS, "response_format.regex", "characters")
            case GrammarFormat(grammar=grammar):
                require(bool(grammar), "response_format.grammar", "must not be empty", got="nothing")
                at_most(len(grammar), MAX_SCHEMA_CHARACTERS, "response_format.grammar", "characters")


def make_request(prompt: Prompt, system_prompt: str | None = None, **options: Any) -> GenerationRequest:
    """Builds a checked request from the arguments of a Python call.

    Args:
        prompt: A prompt, or a conversation.
        system_prompt: Replaces the conversation's own, where set.
        **options: Generation parameters by name, and any of `response_format`, `tools`, `tool_choice`,
            `provider_options`, `request_id`, `labels`, `parameters_policy`, `timeout`. `None` means unset.

    Raises:
        InvalidRequestError: For a value that is malformed or out of range.
        UnsupportedParameterError: For a name that is not known.
    """
    options = {str(name): value for name, value in options.items() if value is not None}
    given: dict[str, Any] = {name: options.pop(name) for name in _REQUEST_OPTIONS if name in options}
    if given.get("parameters_policy") in list(ParametersPolicy):
        given["parameters_policy"] = ParametersPolicy(given["parameters_policy"])
    for name, kind in _OPTION_TYPES.items():
        if name in given and not isinstance(given[name], kind):
            raise InvalidRequestError(
                f"{name} is malformed: {given[name]!r:.80}", field=name, requested=f"{given[name]!r:.80}"
            )
    for index, tool in enumerate(given.get("tools", ())):
        require(isinstance(tool, Tool), f"tools[{index}]", "must be a Tool", got=type(tool).__name__)
    given["tools"] = tuple(given.get("tools", ()))
    given["prompt" if isinstance(prompt, str) else "messages"] = (
        prompt if isinstance(prompt, str) else as_messages(prompt)
    )
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise InvalidRequestError(
            "system_prompt must be a string", field="system_prompt", requested=type(system_prompt).__name__
        )
    request = GenerationRequest(system_prompt=system_prompt, parameters=parse_parameters(options), **given)
    request.check()
    return request


_REQUEST_OPTIONS = (
    "response_format",
    "tools",
    "tool_choice",
    "provider_options",
    "request_id",
    "labels",
    "parameters_policy",
    "timeout",
)
_OPTION_TYPES: dict[str, Any] = {
    "response_format": ResponseFormat,
    "tool_choice": ToolChoice,
    "provider_options": Mapping,
    "request_id": str,
    "labels": Mapping,
    "tools": (list, tuple),
    "parameters_policy": ParametersPolicy,
    "timeout": (int, float),
}


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
    parts: tuple[Part, ...] = (Text(content),) if isinstance(content, str) else tuple(content)
    return ChatMessage(role, parts)


def _check_message(message: ChatMessage, path: str) -> None:
    require(isinstance(message.role, Role), f"{path}.role", "must be a role", got=message.role)
    require(bool(message.parts), f"{path}.parts", "must not be empty", got="nothing")
    for index, part in enumerate(message.parts):
        where = f"{path}.parts[{index}]"
        match part:
            case Image():
                require(
                    message.role is Role.USER,
                    f"{where}.image",
                    "only a user's message may hold an image",
                    got=message.role,
                )
                require(
                    part.mime_type in IMAGE_TYPES,
                    f"{where}.image.mime_type",
                    f"must be one of {', '.join(IMAGE_TYPES)}",
                    got=part.mime_type[:80],
                )
                require(bool(part.data), f"{where}.image.data", "must not be empty", got="0 bytes")
            case ToolCall():
                require(bool(part.name), f"{where}.tool_call.name", "must not be empty", got="nothing")
                _check_schema(part.arguments_json, f"{where}.tool_call.arguments_json")
            case ToolResult():
                require(
                    bool(part.tool_call_id),
                    f"{where}.tool_result.tool_call_id",
                    "must not be empty",
                    got="nothing",
                )
                check_text(part.content, f"{where}.tool_result.content")
            case _:
                require(isinstance(part, Part), where, "must be a part of a message", got=type(part).__name__)
                check_text(part.text, f"{where}.text")


def _check_schema(text: str, path: str) -> None:
    at_most(len(text), MAX_SCHEMA_CHARACTERS, path, "characters")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path} is not JSON: {error}", field=path, requested=text[:80]) from None
    require(isinstance(parsed, dict), path, "must be a JSON object", got=type(parsed).__name__)
