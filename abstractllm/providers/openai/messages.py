"""Writing a request for Chat Completions.

The format: https://developers.openai.com/api/reference/resources/chat
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.hosted.history import answered_calls, result_text
from abstractllm.providers.openai.config import OPENAI_URL, OpenAIConfig
from abstractllm.providers.openai.dialect import Dialect, dialect_of
from abstractllm.providers.openai.models import WITHOUT_REASONING
from abstractllm.providers.openai.wire_state import REASONING_FIELDS, WireState, server_mark
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    ChatMessage,
    Image,
    JsonSchemaFormat,
    Part,
    Reasoning,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from abstractllm.validation import json_object_text

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
_OWN_FIELDS = ("role", "content", "tool_calls")
"""Fields of an assistant's message that no `provider_state` sets."""
_DONE = "Done."
"""The assistant's words between a tool's message and a user's, for servers that want some."""


def as_body(request: GenerationRequest, config: OpenAIConfig) -> dict[str, Any]:
    """Returns the body of a request, for a streamed answer unless `extra_body` says otherwise.

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
    body |= {
        **request.provider_options,
        "model": model,
        "messages": as_messages(request, config),
        # Also where the answer is read as a whole: gateways end a connection that is silent until then.
        "stream": True,
        "stream_options": {"include_usage": True},
        **config.extra_body,
    }
    if body["stream"] is not True:
        body.pop("stream_options")
    return {name: value for name, value in body.items() if value is not None or name not in config.extra_body}


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


def as_messages(request: GenerationRequest, config: OpenAIConfig) -> list[dict[str, Any]]:
    """Returns the conversation as the API's messages.

    Reasoning goes back to the server that it came from, where tools are used: there servers demand it, elsewhere some
    refuse it. A tool's error is marked by the word `Error:` before it. An assistant's turn that holds nothing is left
    out, and the user's messages around it become one.

    Raises:
        InvalidRequestError: For a message that the format cannot express.
    """
    conversation = request.conversation()
    for index, message in enumerate(conversation):
        _check_places(message, index)
    dialect = dialect_of(config.base_url or OPENAI_URL, request.parameters.model or "")
    turns = answered_calls(conversation, dialect.call_ids)
    parts = [part for turn in turns for part in turn.parts]
    uses_tools = bool(request.tools) or any(isinstance(part, ToolCall) for part in parts)
    server = server_mark(config.base_url or OPENAI_URL)
    assistant = _AssistantTurns(server, dialect, parts if config.send_reasoning and uses_tools else None)
    messages: list[dict[str, Any]] = []
    after_nothing = False
    for turn in turns:
        if turn.role is Role.ASSISTANT:
            written = assistant.written(turn)
            after_nothing = written is None
            messages += [written] if written else []
            continue
        for result in (part for part in turn.parts if isinstance(part, ToolResult)):
            messages.append({"role": "tool", "tool_call_id": result.tool_call_id, "content": result_text(result)})
        rest = tuple(part for part in turn.parts if not isinstance(part, ToolResult))
        if not rest:
            continue
        last = messages[-1]["role"] if messages else ""
        if turn.role is Role.USER and after_nothing and last == "user":
            messages[-1]["content"] = _joined(messages[-1]["content"], _content(rest))
        else:
            if turn.role is Role.USER and last == "tool" and not dialect.user_after_tool:
                messages.append({"role": "assistant", "content": _DONE})
            messages.append({"role": str(turn.role), "content": _content(rest)})
        after_nothing = False
    if not messages:
        raise InvalidRequestError(
            "chat.messages: there must be a text, an image or a call among them", field="chat.messages"
        )
    return messages


class _AssistantTurns:
    """Writes the assistant's turns.

    Args:
        server: The mark of the server that is asked.
        dialect: Its rules.
        parts: The parts of the conversation, if the text of reasoning goes back; else None.
    """

    def __init__(self, server: str, dialect: Dialect, parts: Iterable[Part] | None) -> None:
        self._server, self._dialect, self._with_reasoning = server, dialect, parts is not None
        self._missing_reasoning = None if parts is None else dialect.missing_reasoning
        if any(self._state(part).text_field == REASONING_FIELDS[0] for part in parts or ()):
            # A server that gives this field may want it with each of its messages, also where there was none.
            self._missing_reasoning = self._missing_reasoning or ""

    def written(self, turn: ChatMessage) -> dict[str, Any] | None:
        """Returns a turn as a message; None for one that holds nothing."""
        parts = [(part, self._state(part)) for part in turn.parts]
        calls = [(part, state) for part, state in parts if isinstance(part, ToolCall)]
        fields = _message_fields(state.message for _, state in parts)
        if self._with_reasoning:
            for part, state in parts:
                if isinstance(part, Reasoning) and state.text_field in REASONING_FIELDS:
                    fields[state.text_field] = fields.get(state.text_field, "") + part.text
        content = _answer_content(parts)
        if not (content or calls or fields):
            return None
        written = fields | {"role": "assistant", "content": content or (None if calls else "")}
        if calls:
            written["tool_calls"] = self._calls(calls)
        if self._missing_reasoning is not None:
            written.setdefault(REASONING_FIELDS[0], self._missing_reasoning)
        return written

    def _state(self, part: Part) -> WireState:
        """Returns what the server that is asked wants back with a part."""
        state = WireState.of(part.provider_state)
        return state if state is not None and state.server == self._server else WireState(self._server)

    def _calls(self, calls: list[tuple[ToolCall, WireState]]) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        is_foreign = not any(state.call for _, state in calls)
        for call, state in calls:
            fields = self._dialect.missing_signature if is_foreign and not written else state.call
            function = {"name": call.name, "arguments": json_object_text(call.arguments_json)}
            written.append({**fields, "id": call.id, "type": "function", "function": function})
        return written


def _message_fields(messages: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns the fields of a message that its parts' states hold; lists of one name follow one another."""
    fields: dict[str, Any] = {}
    for message in messages:
        for name, value in message.items():
            before = fields.get(name)
            if isinstance(before, list) and isinstance(value, list):
                fields[name] = before + value
            elif name not in _OWN_FIELDS:
                fields.setdefault(name, value)
    return fields


def _answer_content(parts: list[tuple[Part, WireState]]) -> str | list[Any]:
    """Returns an answer's text; a list of items, if the server that is asked gave it as one."""
    if not any(state.content for _, state in parts):
        return "".join(part.text for part, _ in parts if isinstance(part, Text))
    content: list[Any] = []
    for part, state in parts:
        if isinstance(part, Text) and part.text:
            content.append({"type": "text", "text": part.text})
        else:
            content += state.content
    return content


def _check_places(message: ChatMessage, index: int) -> None:
    """Refuses parts in messages whose role cannot have them, and a `provider_state` that cannot be read.

    Raises:
        InvalidRequestError: Naming the message.
    """
    for place, part in enumerate(message.parts):
        try:
            WireState.of(part.provider_state)
        except ValueError as error:
            field = f"chat.messages[{index}].parts[{place}].provider_state"
            raise InvalidRequestError(
                f"{field}: must be the bytes that came with the part", field=field, requested=str(error)
            ) from None
    if message.role is Role.TOOL and not all(isinstance(part, ToolResult) for part in message.parts):
        raise _misplaced(index, "a tool's message may hold tool results only")


def _content(parts: tuple[Part, ...]) -> str | list[dict[str, Any]]:
    if not any(isinstance(part, Image) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    content: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case Text() if part.text:
                content.append({"type": "text", "text": part.text})
            case Image():
                url = f"data:{part.mime_type};base64,{base64.b64encode(part.data).decode()}"
                content.append({"type": "image_url", "image_url": {"url": url}})
    return content


def _joined(first: str | list[dict[str, Any]], second: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Returns the contents of two messages as that of one."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [
        part
        for content in (first, second)
        for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]


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
