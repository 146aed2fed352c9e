"""Reading the events of the Messages API's stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abstractllm.enums import FinishReason, Role
from abstractllm.providers.anthropic.messages import STATE_MARK
from abstractllm.providers.hosted import unknown_finish_reason
from abstractllm.providers.hosted.json_values import read_count, read_optional_text
from abstractllm.types import (
    ChatMessage,
    Event,
    Finished,
    Part,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["AnswerReader"]

_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "max_tokens": FinishReason.MAX_TOKENS,
    "model_context_window_exceeded": FinishReason.MAX_TOKENS,
    # Only tools that run on Anthropic's side pause a turn, and those are not offered.
    "pause_turn": FinishReason.STOP,
    "refusal": FinishReason.REFUSAL,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "tool_use": FinishReason.TOOL_CALLS,
}
_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_USAGE = (*_PROMPT, "output_tokens", "thinking_tokens")


@dataclass(slots=True)
class _Block:
    """A content block as it grows."""

    kind: str
    pieces: list[str] = field(default_factory=list)
    signature: str = ""
    """The signature of thinking; for redacted thinking its data, which is all there is of it."""
    id: str = ""
    name: str = ""
    input: Any = None
    call: int = 0

    def part(self) -> Part | None:
        """Returns the block as a part of the answer's message; None where it holds nothing for the caller."""
        text = "".join(self.pieces)
        match self.kind:
            case "text" if text:
                return Text(text)
            case "thinking" if text or self.signature:
                return Reasoning(text, _state(type="thinking", signature=self.signature))
            case "redacted_thinking":
                return Reasoning("", _state(type="redacted_thinking", data=self.signature))
            case "tool_use":
                return ToolCall(self.id, self.name, text or "{}")
        return None


class AnswerReader:
    """Reads one answer.

    Of the API's twelve kinds of content block, text, thinking, redacted thinking and tool use are read. The others come
    from tools that run on Anthropic's side, which requests through this library never offer; they are ignored.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._usage: dict[str, int] = {}
        self._stop_reason: str | None = None
        self._stop_sequence = ""
        self.began = False
        """True once an event has come."""
        self.stopped = False
        """True once the API has declared the answer complete."""

    def read(self, event: Mapping[str, Any]) -> list[Event]:
        """Takes the stream's next event.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If the event has another shape than the API documents.
        """
        self.began = True
        match event["type"]:
            case "message_start":
                self._count(event["message"].get("usage"))
            case "content_block_start":
                return self._begin(int(event["index"]), event["content_block"])
            case "content_block_delta":
                return self._grow(self._blocks[event["index"]], event["delta"])
            case "content_block_stop":
                return self._end(self._blocks[event["index"]])
            case "message_delta":
                self._count(event.get("usage"))
                self._stop_reason = read_optional_text(event["delta"].get("stop_reason")) or self._stop_reason
                self._stop_sequence = read_optional_text(event["delta"].get("stop_sequence")) or self._stop_sequence
            case "message_stop":
                self.stopped = True
        return []

    def finished(self) -> Finished | None:
        """Returns the last event; None if the API gave no stop reason.

        Raises:
            IncompleteStreamError: If the reason is not known.
        """
        if self._stop_reason is None:
            return None
        reason = _FINISH_REASONS.get(self._stop_reason)
        if reason is None:
            raise unknown_finish_reason(self._stop_reason)
        parts = tuple(part for _, block in sorted(self._blocks.items()) if (part := block.part()) is not None)
        sent = [self._usage[name] for name in _PROMPT if name in self._usage]
        usage = Usage(
            # The API counts apart what it read from its cache and what it wrote to it.
            input_tokens=sum(sent) if sent else None,
            output_tokens=self._usage.get("output_tokens"),
            cached_input_tokens=self._usage.get("cache_read_input_tokens"),
            reasoning_tokens=self._usage.get("thinking_tokens"),
        )
        return Finished(reason, self._stop_sequence, usage, message=ChatMessage(Role.ASSISTANT, parts))

    def _begin(self, index: int, start: Mapping[str, Any]) -> list[Event]:
        block = self._blocks[index] = _Block(start["type"])
        match block.kind:
            case "text":
                return self._text(block, start.get("text"))
            case "thinking":
                block.signature = read_optional_text(start.get("signature"))
                return self._reasoning(block, start.get("thinking"))
            case "redacted_thinking":
                block.signature = read_optional_text(start["data"])
            case "tool_use":
                block.id, block.name, block.input = (
                    read_optional_text(start["id"]),
                    read_optional_text(start["name"]),
                    start.get("input"),
                )
                block.call = self._calls
                self._calls += 1
                return [ToolCallDelta(block.call, block.id, block.name)]
        return []

    def _grow(self, block: _Block, delta: Mapping[str, Any]) -> list[Event]:
        match delta["type"]:
            case "text_delta":
                return self._text(block, delta["text"])
            case "thinking_delta":
                return self._reasoning(block, delta["thinking"])
            case "signature_delta":
                block.signature += read_optional_text(delta["signature"])
            case "input_json_delta" if block.kind == "tool_use":
                return self._arguments(block, read_optional_text(delta["partial_json"]))
        return []

    def _end(self, block: _Block) -> list[Event]:
        # Some servers send the arguments whole, when the block begins.
        return self._arguments(block, json.dumps(block.input)) if block.input and not block.pieces else []

    @staticmethod
    def _arguments(block: _Block, fragment: str) -> list[Event]:
        if not fragment:
            return []
        block.pieces.append(fragment)
        return [ToolCallDelta(block.call, arguments_fragment=fragment)]

    @staticmethod
    def _text(block: _Block, value: object) -> list[Event]:
        if not (text := read_optional_text(value)):
            return []
        block.pieces.append(text)
        return [TextDelta(text)]

    @staticmethod
    def _reasoning(block: _Block, value: object) -> list[Event]:
        if not (text := read_optional_text(value)):
            return []
        block.pieces.append(text)
        return [ReasoningDelta(text)]

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        """Keeps the latest counts, which are totals so far."""
        for name, value in (usage or {}).items():
            if name in _USAGE and (count := read_count(value)) is not None:
                self._usage[name] = count
            elif name == "output_tokens_details":
                self._count(value)


def _state(**values: str) -> bytes:
    return STATE_MARK + json.dumps(values, separators=(",", ":")).encode()
