"""Reading the chunks of a streamed answer.

Compatible servers send more, less and other things than OpenAI: nothing of a chunk is taken for granted.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from abstractllm.errors import IncompleteStreamError, ProviderProtocolError, ProviderUnavailableError
from abstractllm.providers.hosted import unknown_finish_reason
from abstractllm.providers.hosted.json_values import read_count, read_logprob, read_optional_text
from abstractllm.providers.openai.errors import error_of_body
from abstractllm.types import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

__all__ = ["AnswerReader"]

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos_token": FinishReason.STOP,  # Text Generation Inference
    "length": FinishReason.MAX_TOKENS,
    "model_length": FinishReason.MAX_TOKENS,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_FAILED = ("error", "abort")
"""Finish reasons of OpenRouter, Mistral and vLLM for an answer that could not be finished."""


class AnswerReader:
    """Reads one answer, chunk by chunk.

    Args:
        source: The words for the answer in an error, such as `HTTP 200, request req_1`.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._chunks = 0
        self._choices = 0
        self._finish: str | None = None
        self._stop = ""
        self._refused = False
        self._usage = Usage()
        self._calls: list[tuple[object, str]] = []

    @property
    def whole(self) -> bool:
        """True once the answer has ended; only the usage may be missing."""
        return self._finish is not None

    def read(self, chunk: Any) -> list[Event]:
        """Returns the events that a chunk holds.

        Raises:
            ProviderProtocolError: If it cannot be read.
            AbstractLLMError: The error that it reports.
        """
        self._chunks += 1
        try:
            return self._read(chunk)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ProviderProtocolError(
                f"a chunk of the answer cannot be read: {type(error).__name__}: {str(error)[:200]} ({self._source})"
            ) from error

    def read_whole(self, body: Any) -> list[Event]:
        """Returns the events of an answer that came in one piece; errors as `read`."""
        self._chunks += 1
        try:
            if error := body.get("error"):
                raise error_of_body(error if isinstance(error, dict) else {"message": error}, self._source)
            return self._read(body)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise ProviderProtocolError(
                f"the answer cannot be read: {type(error).__name__}: {str(error)[:200]} ({self._source})"
            ) from error

    def finished(self) -> Finished:
        """Returns the last event, once there are no more chunks.

        Raises:
            ProviderProtocolError: If there was no answer at all.
            IncompleteStreamError: If it has no finish reason, or an unknown one.
        """
        if self._finish is None:
            if not self._choices:
                content = "chunks without choices" if self._chunks else "no event of an event stream"
                raise ProviderProtocolError(f"the answer holds {content} ({self._source})")
            raise IncompleteStreamError(f"the answer ended without a finish reason ({self._source})")
        return Finished(self._finish_reason(self._finish), self._stop, self._usage)

    def _finish_reason(self, reason: str) -> FinishReason:
        if reason in _FAILED:
            raise ProviderUnavailableError(f"the answer ended with the finish reason {reason!r} ({self._source})")
        if reason not in _FINISH_REASONS:
            raise unknown_finish_reason(reason, self._source)
        finish_reason = _FINISH_REASONS[reason]
        if finish_reason is not FinishReason.STOP:
            return finish_reason
        # A call that `tool_choice` forced, and every call of some compatible servers, ends with `stop`.
        if self._calls:
            return FinishReason.TOOL_CALLS
        if self._refused:
            return FinishReason.REFUSAL
        return FinishReason.STOP_SEQUENCE if self._stop else FinishReason.STOP

    def _read(self, chunk: Any) -> list[Event]:
        if chunk.get("object") == "error":
            raise error_of_body(chunk, self._source)
        if usage := chunk.get("usage"):
            self._usage = _usage(usage)
        events: list[Event] = []
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):
                self._choices += 1
                events += self._choice(choice)
        return events

    def _choice(self, choice: dict[str, Any]) -> list[Event]:
        delta, events = choice.get("delta") or choice.get("message") or {}, list[Event]()
        reasoning = read_optional_text(delta.get("reasoning_content")) or read_optional_text(delta.get("reasoning"))
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        text = read_optional_text(delta.get("content"))
        if refusal := read_optional_text(delta.get("refusal")):
            self._refused = True
            text += refusal
        logprobs = _logprobs(choice.get("logprobs"))
        if text or logprobs:
            events.append(TextDelta(text, logprobs))
        calls = delta.get("tool_calls") or ()
        if choice.get("message"):  # whole calls, which are told apart by their place
            calls = [call | {"index": place} for place, call in enumerate(calls)]
        events += [self._call(call) for call in calls]
        if (reason := choice.get("finish_reason")) is not None:
            self._finish = str(reason)
            stop = choice.get("stop_reason")  # vLLM and SGLang tell which sequence was found
            self._stop = read_optional_text(stop) if isinstance(stop, str) else ""
        return events

    def _call(self, call: dict[str, Any]) -> ToolCallDelta:
        function = call.get("function") or {}
        name, arguments = read_optional_text(function.get("name")), function.get("arguments")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        fragment, call_id, place = read_optional_text(arguments), read_optional_text(call.get("id")), call.get("index")
        known = [number for number, (index, _) in enumerate(self._calls) if index == place]
        # Some servers give every call of an answer the same index, or none: then the id tells them apart.
        if known and call_id in ("", self._calls[known[-1]][1]):
            return ToolCallDelta(known[-1], arguments_fragment=fragment)
        if not name:
            raise ValueError("a tool call without a name")
        call_id = call_id or f"call_{uuid.uuid4().hex}"
        self._calls.append((place, call_id))
        return ToolCallDelta(len(self._calls) - 1, call_id, name, fragment)


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=_count(usage, "prompt_tokens"),
        output_tokens=_count(usage, "completion_tokens"),
        cached_input_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(holder: dict[str, Any] | None, name: str) -> int | None:
    return read_count((holder or {}).get(name))


def _logprobs(logprobs: dict[str, Any] | None) -> tuple[TokenLogprob, ...]:
    return tuple(read_logprob(token) for token in (logprobs or {}).get("content") or ())
