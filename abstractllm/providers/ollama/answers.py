"""Reading the lines of Ollama's answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from abstractllm.enums import FinishReason
from abstractllm.providers.hosted.finish_reasons import finish_reason_of
from abstractllm.providers.hosted.json_values import read_count, read_logprobs, read_text, text_in, unique_call_id
from abstractllm.types import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

__all__ = ["AnswerReader"]


class AnswerReader:
    """Reads one answer, line by line.

    The API gives the reason `stop` both for the model's end token and for a stop sequence: both are `STOP` here.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[str, str, str]] = []
        """The calls as the server gave them: id, name, arguments."""
        self._ids: set[str] = set()
        self.began = False
        """True once a line has come."""
        self.logprobs = False
        """True once log-probabilities have come."""
        self.last: Mapping[str, Any] | None = None
        """The last line, once it has come: the one with `done`."""

    def read(self, line: Mapping[str, Any]) -> list[Event]:
        """Takes the next line.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it has another shape than the API documents.
        """
        self.began = True
        events: list[Event] = []
        message = line.get("message") or {}
        logprobs = read_logprobs(line.get("logprobs"))
        self.logprobs = self.logprobs or bool(logprobs)
        if thinking := text_in(message.get("thinking")):
            events.append(ReasoningDelta(thinking))
        content = message.get("content")
        text = text_in(content) if isinstance(content, list | dict) else read_text(content or "")
        if text or logprobs:
            events.append(TextDelta(text, logprobs))
        entries = message.get("tool_calls") or ()
        calls = [_call(call) for call in ([entries] if isinstance(entries, Mapping) else entries) if call is not None]
        # Some servers repeat all calls in the last line.
        if not (line.get("done") and calls and _are_same(calls, self._calls)):
            events += [self._begun(*call) for call in calls]
        if line.get("done"):
            self.last = line
        return events

    def finished(self, last: Mapping[str, Any]) -> Finished:
        """Returns the last event, from the answer's last line.

        Raises:
            ProviderUnavailableError: If the reason for its end says that the server could not finish it.
            IncompleteStreamError: If the reason is not known.
        """
        word = last.get("done_reason")
        reason = finish_reason_of(str(word)) if word else FinishReason.STOP
        if reason is FinishReason.STOP and self._calls:
            reason = FinishReason.TOOL_CALLS
        usage = Usage(read_count(last.get("prompt_eval_count")), read_count(last.get("eval_count")))
        return Finished(reason, usage=usage)

    def _begun(self, call_id: str, name: str, arguments: str) -> ToolCallDelta:
        """Returns the event of a call, which comes whole. Older servers give it no id."""
        self._calls.append((call_id, name, arguments))
        return ToolCallDelta(len(self._calls) - 1, unique_call_id(call_id, self._ids), name, arguments)


def _call(call: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns the id, the name and the arguments of a call.

    Some servers leave out the object `function`, or give the arguments as text, as OpenAI's API does.
    """
    function = call.get("function") or call
    call_id = call.get("id")
    name, arguments = read_text(function["name"]), _arguments(function.get("arguments"))
    return call_id if isinstance(call_id, str) else "", name, arguments


def _arguments(value: object) -> str:
    """Returns the text of a call's arguments; text that is no JSON, since the answer was cut, as it came."""
    if not isinstance(value, str):
        return json.dumps(value or {}, ensure_ascii=False)
    try:
        inner = json.loads(value or "null")
    except (ValueError, RecursionError):
        return value
    return _arguments(inner) if inner is None or isinstance(inner, str) else value


def _are_same(calls: list[tuple[str, str, str]], before: list[tuple[str, str, str]]) -> bool:
    return len(calls) == len(before) and all(
        call[1:] == other[1:] and (not call[0] or not other[0] or call[0] == other[0])
        for call, other in zip(calls, before, strict=True)
    )
