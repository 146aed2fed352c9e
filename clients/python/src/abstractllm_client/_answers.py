"""The contract's answers -> the client's values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import models_pb2
from abstractllm_client import _fields
from abstractllm_client._enum_codec import ERROR_REASONS, FINISH_REASONS, ROLES
from abstractllm_client.answers import (
    Attempt,
    CachedModel,
    Capabilities,
    ClearedModels,
    Completion,
    Event,
    Finished,
    LlmInfo,
    LoadProgress,
    PullProgress,
    ReasoningDelta,
    Started,
    TextDelta,
    Timing,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    UnloadProgress,
    Usage,
)
from abstractllm_client.messages import ChatMessage, Image, Part, Reasoning, Text, ToolCall, ToolResult

T = TypeVar("T")


def completion(response: pb.GenerateResponse) -> Completion:
    """Decodes a whole answer."""
    return Completion(
        id=response.id,
        text=response.text,
        message=_message(response.message),
        finish_reason=FINISH_REASONS.decode(response.finish_reason),
        stop_sequence=response.stop_sequence,
        usage=Usage(**_values(Usage, response.usage)),
        llm=response.llm,
        provider=response.provider,
        model=response.model,
        attempts=_attempts(response.attempts),
        timing=Timing(**_values(Timing, response.timing)),
        logprobs=_logprobs(response.logprobs),
        dropped_parameters=tuple(response.dropped_parameters),
    )


def event(response: pb.StreamGenerateResponse) -> Event | None:
    """Decodes an event, or returns None for a kind that only newer contracts know."""
    match response.WhichOneof("event"):
        case "started":
            started = response.started
            dropped = tuple(started.dropped_parameters)
            return Started(started.id, started.llm, started.provider, started.model, dropped)
        case "text_delta":
            return TextDelta(response.text_delta.text, _logprobs(response.text_delta.logprobs))
        case "reasoning_delta":
            return ReasoningDelta(response.reasoning_delta.text)
        case "tool_call_delta":
            delta = response.tool_call_delta
            return ToolCallDelta(delta.index, delta.id, delta.name, delta.arguments_fragment)
        case "finished":
            finished = response.finished
            return Finished(
                finish_reason=FINISH_REASONS.decode(finished.finish_reason),
                stop_sequence=finished.stop_sequence,
                usage=Usage(**_values(Usage, finished.usage)),
                attempts=_attempts(finished.attempts),
                timing=Timing(**_values(Timing, finished.timing)),
                message=_message(finished.message) if finished.HasField("message") else None,
            )
    return None


def capabilities(response: models_pb2.Capabilities) -> Capabilities:
    """Decodes an LLM's capabilities."""
    return Capabilities(**_values(Capabilities, response))


def llm_info(response: models_pb2.Llm) -> LlmInfo:
    """Decodes an LLM's state."""
    return LlmInfo(**_values(LlmInfo, response))


def cached_model(response: models_pb2.CachedModel) -> CachedModel:
    """Decodes a model of the server's cache."""
    return CachedModel(**_values(CachedModel, response))


def cleared_models(response: models_pb2.ClearCacheResponse) -> ClearedModels:
    """Decodes what was deleted."""
    return ClearedModels(**_values(ClearedModels, response))


def pull_progress(response: models_pb2.PullModelResponse) -> PullProgress:
    """Decodes a download's progress."""
    return PullProgress(**_values(PullProgress, response))


def load_progress(response: models_pb2.LoadModelResponse) -> LoadProgress:
    """Decodes a load's progress."""
    return LoadProgress(**_values(LoadProgress, response))


def unload_progress(response: models_pb2.UnloadModelResponse) -> UnloadProgress:
    """Decodes an unload's progress."""
    return UnloadProgress(**_values(UnloadProgress, response))


def _values(kind: Any, message: Message) -> dict[str, Any]:
    """Reads the fields of a message that have the names of a dataclass's fields; lists become tuples."""
    values = {field.name: _fields.decode(message, field.name) for field in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _message(message: pb.ChatMessage) -> ChatMessage:
    parts = (_part(part) for part in message.parts)
    return ChatMessage(ROLES.decode(message.role), tuple(part for part in parts if part is not None))


def _part(part: pb.Part) -> Part | None:
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
    return None


def _attempts(attempts: Iterable[pb.Attempt]) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            llm=attempt.llm,
            provider=attempt.provider,
            model=attempt.model,
            error_reason=ERROR_REASONS.decode(attempt.error_reason) or "",
            message=attempt.message,
            duration=attempt.duration.ToNanoseconds() / 1e9,
        )
        for attempt in attempts
    )


def _logprobs(entries: Iterable[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            entry.token_id,
            entry.token,
            entry.token_bytes,
            entry.logprob,
            tuple(TopLogprob(top.token_id, top.token, top.token_bytes, top.logprob) for top in entry.top),
        )
        for entry in entries
    )
