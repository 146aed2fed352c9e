"""Answers: from the library's values to the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from abstractllm.types import (
    Attempt,
    ChatMessage,
    Completion,
    Event,
    Finished,
    Image,
    Part,
    Reasoning,
    ReasoningDelta,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolResult,
)
from abstractllm.validation import replace_surrogates
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.fields import duration, enum_number, to_message

__all__ = ["completion", "event"]


def event(value: Event) -> pb.StreamGenerateResponse:
    """Encodes one event of a stream."""
    match value:
        case TextDelta():
            delta = pb.TextDelta(text=replace_surrogates(value.text), logprobs=_logprobs(value.logprobs))
            return pb.StreamGenerateResponse(text_delta=delta)
        case ReasoningDelta():
            return pb.StreamGenerateResponse(reasoning_delta=pb.ReasoningDelta(text=replace_surrogates(value.text)))
        case ToolCallDelta():
            return pb.StreamGenerateResponse(tool_call_delta=to_message(pb.ToolCallDelta, value))
        case Started():
            return pb.StreamGenerateResponse(started=to_message(pb.Started, value))
        case Finished():
            finished = pb.Finished(
                finish_reason=enum_number(pb.FinishReason.DESCRIPTOR, value.finish_reason),
                stop_sequence=value.stop_sequence,
                usage=to_message(pb.Usage, value.usage),
                attempts=_attempts(value.attempts),
                timing=to_message(pb.Timing, value.timing),
                message=None if value.message is None else _chat_message(value.message),
            )
            return pb.StreamGenerateResponse(finished=finished)
        case _:
            assert_never(value)


def completion(value: Completion) -> pb.GenerateResponse:
    """Encodes a whole answer."""
    return pb.GenerateResponse(
        id=value.id,
        text=replace_surrogates(value.text),
        message=_chat_message(value.message),
        finish_reason=enum_number(pb.FinishReason.DESCRIPTOR, value.finish_reason),
        stop_sequence=value.stop_sequence,
        usage=to_message(pb.Usage, value.usage),
        llm=value.llm,
        provider=value.provider,
        model=value.model,
        attempts=_attempts(value.attempts),
        timing=to_message(pb.Timing, value.timing),
        logprobs=_logprobs(value.logprobs),
        dropped_parameters=value.dropped_parameters,
    )


def _chat_message(value: ChatMessage) -> pb.ChatMessage:
    role = enum_number(pb.Role.DESCRIPTOR, value.role)
    return pb.ChatMessage(role=role, parts=[_part(part) for part in value.parts])


def _part(value: Part) -> pb.Part:
    state = value.provider_state
    match value:
        case Text():
            return pb.Part(text=replace_surrogates(value.text), provider_state=state)
        case Reasoning():
            return pb.Part(reasoning=pb.Reasoning(text=replace_surrogates(value.text)), provider_state=state)
        case ToolCall():
            call = pb.ToolCall(
                id=replace_surrogates(value.id),
                name=replace_surrogates(value.name),
                arguments_json=replace_surrogates(value.arguments_json),
            )
            return pb.Part(tool_call=call, provider_state=state)
        case ToolResult():
            result = pb.ToolResult(
                tool_call_id=replace_surrogates(value.tool_call_id),
                content=replace_surrogates(value.content),
                is_error=value.is_error,
            )
            return pb.Part(tool_result=result, provider_state=state)
        case Image():
            return pb.Part(image=pb.Image(data=value.data, mime_type=value.mime_type), provider_state=state)


def _attempts(values: Iterable[Attempt]) -> list[pb.Attempt]:
    return [
        pb.Attempt(
            llm=attempt.llm,
            provider=attempt.provider,
            model=attempt.model,
            error_reason=f"ERROR_REASON_{attempt.error_reason or 'UNSPECIFIED'}",
            message=replace_surrogates(attempt.message),
            duration=duration(attempt.duration),
        )
        for attempt in values
    ]


def _logprobs(values: Iterable[TokenLogprob]) -> list[pb.TokenLogprob]:
    return [
        pb.TokenLogprob(
            token_id=item.token_id,
            token=replace_surrogates(item.token),
            token_bytes=item.token_bytes,
            logprob=item.logprob,
            top=[
                pb.TopLogprob(
                    token_id=top.token_id,
                    token=replace_surrogates(top.token),
                    token_bytes=top.token_bytes,
                    logprob=top.logprob,
                )
                for top in item.top
            ],
        )
        for item in values
    ]
