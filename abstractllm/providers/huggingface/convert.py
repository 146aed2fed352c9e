"""Conversions between the library's types and the messages of an engine process."""

from __future__ import annotations

from abstractllm.enums import FinishReason, Role, ToolChoiceMode
from abstractllm.errors import InvalidRequestError, UnsupportedFeatureError
from abstractllm.providers.huggingface.protocol.messages import (
    Conversation,
    Delta,
    Done,
    Format,
    Logprob,
    ToolDefinition,
    TopToken,
    Turn,
)
from abstractllm.providers.huggingface.protocol.messages import ToolCall as CallMessage
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Event,
    Finished,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    Reasoning,
    ReasoningDelta,
    RegexFormat,
    TextDelta,
    Timing,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    TopLogprob,
    Usage,
)
from abstractllm.validation import json_object_text

__all__ = ["RAW_OPTION", "as_conversation", "as_event", "as_finished", "as_format", "is_piece"]

RAW_OPTION = "special_tokens_in_prompt"
"""The provider option that gives a prompt to the model as it is, its special tokens read as such."""


def as_conversation(request: GenerationRequest) -> Conversation:
    """Returns what the model is given: messages with the system prompt in its place, tools, reasoning effort."""
    names: dict[str, str] = {}
    turns: list[Turn] = []
    places = {id(message): index for index, message in enumerate(request.messages)}
    for message in request.conversation():
        place = places.get(id(message), -1)
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        names |= {call.id: call.name for call in calls}
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        turns += [_result(result, names.get(result.tool_call_id, ""), place) for result in results]
        reasoning = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
        if message.text or reasoning or calls or not results:
            earlier = tuple(CallMessage(call.id, call.name, json_object_text(call.arguments_json)) for call in calls)
            turns.append(Turn(message.role.value, message.text, reasoning, earlier, message=place))
    effort = request.parameters.reasoning_effort or ""
    return Conversation(tuple(turns), *_tools(request), effort, _is_raw(request))


def _is_raw(request: GenerationRequest) -> bool:
    """Tells whether the prompt is given to the model as it is, its special tokens read as such.

    Raises:
        InvalidRequestError: If the option is neither true nor false.
        UnsupportedFeatureError: If the request is more than a prompt.
    """
    field = f"provider_options.{RAW_OPTION}"
    is_raw = request.provider_options.get(RAW_OPTION, False)
    if not isinstance(is_raw, bool):
        raise InvalidRequestError(f"{field}: must be true or false, got {is_raw!r:.80}", field=field)
    if is_raw and (request.prompt is None or request.system_prompt or request.tools):
        raise UnsupportedFeatureError(
            f"{field}: it takes a prompt alone, without messages, a system prompt or tools", field=field
        )
    return is_raw


def _result(result: ToolResult, name: str, place: int) -> Turn:
    # Templates have no mark for a tool that failed: its text has to say so.
    content = f"Error: {result.content}" if result.is_error else result.content
    return Turn(Role.TOOL.value, content, call_id=result.tool_call_id, name=name, message=place)


def _tools(request: GenerationRequest) -> tuple[tuple[ToolDefinition, ...], tuple[str, ...]]:
    """Returns the tools that the model may call, and the names of those of which it must call one."""
    choice = request.tool_choice or ToolChoice()
    if choice.mode is ToolChoiceMode.NONE:
        return (), ()
    tools = tuple(ToolDefinition(tool.name, tool.description, tool.parameters_json_schema) for tool in request.tools)
    if choice.name is not None:
        return tools, (choice.name,)
    return tools, tuple(tool.name for tool in tools) if choice.mode is ToolChoiceMode.REQUIRED else ()


def as_format(request: GenerationRequest) -> Format | None:
    """Returns the format that the answer must have; None if it is free.

    Raises:
        UnsupportedFeatureError: If the model may call tools as well: a call is not in the format.
    """
    format = request.response_format
    if format is not None and _tools(request)[0]:
        raise UnsupportedFeatureError(
            "response_format: this LLM holds an answer to a format only where no tool may be called (tool_choice NONE)",
            field="response_format",
        )
    match format:
        case JsonObjectFormat():
            return Format("json_object")
        case JsonSchemaFormat(schema_json=schema):
            return Format("json_schema", schema)
        case RegexFormat(regex=pattern):
            return Format("regex", pattern)
        case GrammarFormat(grammar=grammar):
            return Format("grammar", grammar)
        case _:
            return None


def is_piece(delta: Delta) -> bool:
    """Tells whether a message brings a piece of the answer, and not only the count of its tokens."""
    return bool(delta.text or delta.logprobs or delta.reasoning) or delta.call is not None


def as_event(delta: Delta) -> Event:
    """Returns the event of a piece of the answer."""
    if delta.call is not None:
        return ToolCallDelta(delta.call.index, delta.call.id, delta.call.name, delta.call.arguments)
    if delta.reasoning:
        return ReasoningDelta(delta.reasoning)
    return TextDelta(delta.text, tuple(_as_token_logprob(logprob) for logprob in delta.logprobs))


def _as_token_logprob(logprob: Logprob) -> TokenLogprob:
    """Returns a position's log-probabilities; bytes that are no text alone are shown as replacement characters."""
    top = tuple(TopLogprob(token.token_id, _text(token), token.token_bytes, token.logprob) for token in logprob.top)
    return TokenLogprob(logprob.token_id, _text(logprob), logprob.token_bytes, logprob.logprob, top)


def _text(token: Logprob | TopToken) -> str:
    return token.token_bytes.decode("utf-8", "replace")


def as_finished(done: Done, queued: float | None, total: float) -> Finished:
    """Returns the event of an answer's end.

    Args:
        done: The end as the process reports it.
        queued: Seconds until the request's turn came.
        total: Seconds until the answer was complete.
    """
    first_token = None
    if done.since_first_token is not None:
        first_token = max(queued or 0.0, total - done.since_first_token)
    usage = Usage(
        input_tokens=done.input_tokens,
        output_tokens=done.output_tokens,
        cached_input_tokens=done.cached_tokens,
        reasoning_tokens=done.reasoning_tokens,
    )
    return Finished(FinishReason(done.finish_reason), done.stop_sequence, usage, timing=Timing(queued, first_token))
