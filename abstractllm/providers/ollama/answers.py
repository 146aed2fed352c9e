"""Reading the lines of Ollama's answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from abstractllm.enums import FinishReason
from abstractllm.providers.hosted import unknown_finish_reason
from abstractllm.providers.hosted.json_values import read_count, read_logprob, read_text
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
        self._calls = 0
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
        logprobs = tuple(read_logprob(token) for token in line.get("logprobs") or ())
        self.logprobs = self.logprobs or bool(logprobs)
        if thinking := message.get("thinking"):
            events.append(ReasoningDelta(read_text(thinking)))
        text = read_text(message.get("content") or "")
        if text or logprobs:
            events.append(TextDelta(text, logprobs))
        events += [self._call(call) for call in message.get("tool_calls") or ()]
        if line.get("done"):
            self.last = line
        return events

    def finished(self, last: Mapping[str, Any]) -> Finished:
        """Returns the last event, from the answer's last line.

        Raises:
            IncompleteStreamError: If the reason for its end is not known.
        """
        match last.get("done_reason"):
            case "length":
                reason = FinishReason.MAX_TOKENS
            case "stop" | "" | None:
                reason = FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP
            case unknown:
                raise unknown_finish_reason(str(unknown))
        usage = Usage(read_count(last.get("prompt_eval_count")), read_count(last.get("eval_count")))
        return Finished(reason, usage=usage)

    def _call(self, call: Mapping[str, Any]) -> ToolCallDelta:
        """Reads a tool call, which comes whole. Older servers give it no id."""
        function = call["function"]
        arguments = function.get("arguments") or {}
        if not isinstance(arguments, Mapping):
            raise TypeError("a tool call's arguments are not an object")
        index, self._calls = self._calls, self._calls + 1
        call_id = read_text(call.get("id") or f"call_{uuid.uuid4().hex}")
        return ToolCallDelta(
            index, call_id, read_text(function["name"]), read_text(json.dumps(arguments, ensure_ascii=False))
        )
