"""Between the contract's messages and the library's types, answers out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, assert_never

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor

from abstractllm.types import (
    Attempt,
    CachedModel,
    Capabilities,
    ChatMessage,
    Completion,
    Event,
    Finished,
    Image,
    LlmInfo,
    LoadProgress,
    Part,
    PullProgress,
    Reasoning,
    ReasoningDelta,
    Started,
    Text,
    TextDelta,
    Timing,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    UnloadProgress,
    Usage,
)
from abstractllm_api.v1 import generation_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb

__all__ = ["cached_model", "capabilities", "completion", "duration", "event", "llm_info", "number_of", "pull_progress"]


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def event(found: Event) -> pb.StreamGenerateResponse:
    """Encodes one event of a stream."""
    match found:
        case TextDelta():
            delta = pb.TextDelta(text=_text(found.text), logprobs=_logprobs(found.logprobs))
            return pb.StreamGenerateResponse(text_delta=delta)
        case ReasoningDelta():
            return pb.StreamGenerateResponse(reasoning_delta=pb.ReasoningDelta(text=_text(found.text)))
        case ToolCallDelta():
            call = pb.ToolCallDelta(
                index=found.index,
                id=_text(found.id),
                name=_text(found.name),
                arguments_fragment=_text(found.arguments_fragment),
            )
            return pb.StreamGenerateResponse(tool_call_delta=call)
        case Started():
            started = pb.Started(
                id=found.id,
                llm=found.llm,
                provider=found.provider,
                model=found.model,
                dropped_parameters=found.dropped_parameters,
            )
            return pb.StreamGenerateResponse(started=started)
        case Finished():
            finished = pb.Finished(
                finish_reason=number_of(pb.FinishReason.DESCRIPTOR, found.finish_reason),
                stop_sequence=found.stop_sequence,
                usage=_usage(found.usage),
                attempts=_attempts(found.attempts),
                timing=_timing(found.timing),
                message=None if found.message is None else _chat_message(found.message),
            )
            return pb.StreamGenerateResponse(finished=finished)
        case _:
            assert_never(found)


def completion(found: Completion) -> pb.GenerateResponse:
    """Encodes a whole answer."""
    return pb.GenerateResponse(
        id=found.id,
        text=_text(found.text),
        message=_chat_message(found.message),
        finish_reason=number_of(pb.FinishReason.DESCRIPTOR, found.finish_reason),
        stop_sequence=found.stop_sequence,
        usage=_usage(found.usage),
        llm=found.llm,
        provider=found.provider,
        model=found.model,
        attempts=_attempts(found.attempts),
        timing=_timing(found.timing),
        logprobs=_logprobs(found.logprobs),
        dropped_parameters=found.dropped_parameters,
    )


def capabilities(found: Capabilities) -> models_pb2.Capabilities:
    """Encodes what an LLM can do; the names are the same on both sides."""
    return models_pb2.Capabilities(**_set_fields(found))


def llm_info(found: LlmInfo) -> models_pb2.Llm:
    """Encodes how an LLM is."""
    return models_pb2.Llm(**_set_fields(found) | {"state": number_of(models_pb2.LlmState.DESCRIPTOR, found.state)})


def load_progress(found: LoadProgress) -> models_pb2.LoadModelResponse:
    """Encodes a load's progress."""
    state = number_of(models_pb2.LlmState.DESCRIPTOR, found.state)
    return models_pb2.LoadModelResponse(**_set_fields(found) | {"state": state})


def unload_progress(found: UnloadProgress) -> models_pb2.UnloadModelResponse:
    """Encodes an unload's progress."""
    state = number_of(models_pb2.LlmState.DESCRIPTOR, found.state)
    return models_pb2.UnloadModelResponse(state=state, running=found.running)


def cached_model(found: CachedModel) -> models_pb2.CachedModel:
    """Encodes a model of a cache."""
    times = {
        name: timestamp_pb2.Timestamp(seconds=int(value), nanos=int(value % 1 * 1e9))
        for name in ("last_used_time", "last_modified_time")
        if (value := getattr(found, name)) is not None
    }
    return models_pb2.CachedModel(**_set_fields(found) | times)


def pull_progress(found: PullProgress) -> models_pb2.PullModelResponse:
    """Encodes how far a download is."""
    return models_pb2.PullModelResponse(**_set_fields(found))


def duration(seconds: float | None) -> duration_pb2.Duration | None:
    """Encodes a span; None stays absent."""
    if seconds is None:
        return None
    found = duration_pb2.Duration()
    found.FromNanoseconds(int(seconds * 1e9))
    return found


def number_of(enum: EnumDescriptor, member: StrEnum) -> Any:
    """The number of a member: its name with the prefix that the contract's enum carries."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_name[prefix + member.name].number


def _set_fields(found: Any) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return {
        name: _text(value) if isinstance(value, str) else value for name, value in values.items() if value is not None
    }


def _chat_message(found: ChatMessage) -> pb.ChatMessage:
    return pb.ChatMessage(role=number_of(pb.Role.DESCRIPTOR, found.role), parts=[_part(part) for part in found.parts])


def _part(found: Part) -> pb.Part:
    state = found.provider_state
    match found:
        case Text():
            return pb.Part(text=_text(found.text), provider_state=state)
        case Reasoning():
            return pb.Part(reasoning=pb.Reasoning(text=_text(found.text)), provider_state=state)
        case ToolCall():
            call = pb.ToolCall(id=_text(found.id), name=_text(found.name), arguments_json=_text(found.arguments_json))
            return pb.Part(tool_call=call, provider_state=state)
        case ToolResult():
            result = pb.ToolResult(
                tool_call_id=_text(found.tool_call_id), content=_text(found.content), is_error=found.is_error
            )
            return pb.Part(tool_result=result, provider_state=state)
        case Image():
            return pb.Part(image=pb.Image(data=found.data, mime_type=found.mime_type), provider_state=state)


def _usage(found: Usage) -> pb.Usage:
    return pb.Usage(**_set_fields(found))


def _timing(found: Timing) -> pb.Timing:
    return pb.Timing(
        queued=duration(found.queued), first_token=duration(found.first_token), total=duration(found.total)
    )


def _attempts(found: Iterable[Attempt]) -> list[pb.Attempt]:
    return [
        pb.Attempt(
            llm=attempt.llm,
            provider=attempt.provider,
            model=attempt.model,
            error_reason=f"ERROR_REASON_{attempt.error_reason or 'UNSPECIFIED'}",
            message=_text(attempt.message),
            duration=duration(attempt.duration),
        )
        for attempt in found
    ]


def _logprobs(found: Iterable[TokenLogprob]) -> list[generation_pb2.TokenLogprob]:
    return [
        pb.TokenLogprob(
            token_id=item.token_id,
            token=_text(item.token),
            token_bytes=item.token_bytes,
            logprob=item.logprob,
            top=[
                pb.TopLogprob(
                    token_id=top.token_id, token=_text(top.token), token_bytes=top.token_bytes, logprob=top.logprob
                )
                for top in item.top
            ],
        )
        for item in found
    ]


def _text(text: str) -> str:
    """A surrogate, which a provider's JSON or a file's name may hold, cannot be sent: it becomes U+FFFD.

    Each by itself, also in a pair: a pair that was split between two pieces must give the same text as the whole.
    """
    return _SURROGATE.sub("\ufffd", text)
