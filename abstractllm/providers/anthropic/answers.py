"""Reading the events of the Messages API's stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abstractllm.enums import FinishReason, Role
from abstractllm.providers.anthropic.messages import STATE_MARK
from abstractllm.providers.hosted.finish_reasons import finish_reason_of
from abstractllm.providers.hosted.json_values import read_count, read_optional_text, unique_call_id
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
from abstractllm.validation import replace_surrogates

__all__ = ["EVENTS", "AnswerReader"]

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_USAGE = (*_PROMPT, "output_tokens", "thinking_tokens")
_KINDS = ("text", "thinking", "redacted_thinking", "tool_use")
"""The kinds of content block that are read."""
EVENTS = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop"),
)
"""The types of event that are read; the API may have others at any time."""


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
    ended: bool = False

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
        self._blocks: list[_Block] = []
        """The blocks in the order in which they began: some servers give several the same index."""
        self._latest: dict[object, _Block] = {}
        """The latest block of each index."""
        self._ids: set[str] = set()
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
                return self._begin(event.get("index"), event["content_block"])
            case "content_block_delta":
                return self._grow(event.get("index"), event["delta"])
            case "content_block_stop":
                return self._end(self._latest.get(event.get("index")))
            case "message_delta":
                self._count(event.get("usage"))
                delta = event.get("delta") or {}
                self._stop_reason = read_optional_text(delta.get("stop_reason")) or self._stop_reason
                self._stop_sequence = read_optional_text(delta.get("stop_sequence")) or self._stop_sequence
            case "message_stop":
                self.stopped = True
                return [event for block in self._blocks for event in self._end(block)]
        return []

    def read_whole(self, message: Mapping[str, Any]) -> list[Event]:
        """Takes an answer that came in one piece.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: If it has another shape than the API documents.
        """
        self._count(message.get("usage"))
        self._stop_reason = read_optional_text(message["stop_reason"]) or None
        self._stop_sequence = read_optional_text(message.get("stop_sequence"))
        events: list[Event] = []
        for index, block in enumerate(message["content"]):
            events += [*self._begin(index, block), *self._end(self._latest[index])]
        self.began = self.stopped = True
        return events

    def finished(self) -> Finished | None:
        """Returns the last event; None if the API gave no stop reason.

        Raises:
            ProviderUnavailableError: If the reason says that the server could not finish the answer.
            IncompleteStreamError: If the reason is not known.
        """
        if self._stop_reason is None:
            return None
        reason = finish_reason_of(self._stop_reason)
        if reason is FinishReason.STOP and any(block.kind == "tool_use" for block in self._blocks):
            reason = FinishReason.TOOL_CALLS  # servers that speak the API have their own words
        parts = tuple(part for block in self._blocks if (part := block.part()) is not None)
        sent = [self._usage[name] for name in _PROMPT if name in self._usage]
        usage = Usage(
            # The API counts apart what it read from its cache and what it wrote to it.
            input_tokens=sum(sent) if sent else None,
            output_tokens=self._usage.get("output_tokens"),
            cached_input_tokens=self._usage.get("cache_read_input_tokens"),
            reasoning_tokens=self._usage.get("thinking_tokens"),
        )
        return Finished(reason, self._stop_sequence, usage, message=ChatMessage(Role.ASSISTANT, parts))

    def _begin(self, index: object, start: Mapping[str, Any]) -> list[Event]:
        block = self._latest[index] = _Block(read_optional_text(start.get("type")))
        self._blocks.append(block)
        match block.kind:
            case "text":
                return self._text(block, start.get("text"))
            case "thinking":
                block.signature = read_optional_text(start.get("signature"))
                return self._reasoning(block, start.get("thinking"))
            case "redacted_thinking":
                block.signature = read_optional_text(start["data"])
            case "tool_use":
                block.call = len(self._ids)
                block.id = unique_call_id(read_optional_text(start.get("id")), self._ids)
                block.name = read_optional_text(start["name"])
                block.input = start.get("input")
                return [ToolCallDelta(block.call, block.id, block.name)]
        return []

    def _grow(self, index: object, delta: Mapping[str, Any]) -> list[Event]:
        block = self._latest.get(index)
        if block is None and self._blocks and (index is None or delta["type"] == "input_json_delta"):
            block = self._blocks[-1]  # some servers number the deltas otherwise than the blocks, or not at all
        match delta["type"]:
            case "text_delta":
                return self._text(self._of_kind("text", index, block), delta["text"])
            case "thinking_delta":
                return self._reasoning(self._of_kind("thinking", index, block), delta["thinking"])
            case "signature_delta" if block is not None:
                block.signature += read_optional_text(delta["signature"])
            case "input_json_delta" if block is not None and block.kind == "tool_use":
                return self._arguments(block, read_optional_text(delta["partial_json"]))
        return []

    def _of_kind(self, kind: str, index: object, block: _Block | None) -> _Block:
        """Returns the block that text goes to: a new one if it did not begin, or began as one of an unknown kind."""
        if block is None or block.kind not in _KINDS:
            block = self._latest[index] = _Block(kind)
            self._blocks.append(block)
        return block

    def _end(self, block: _Block | None) -> list[Event]:
        # Some servers send the arguments whole, when the block begins.
        if block is None or block.ended:
            return []
        block.ended = True
        if not block.input or block.pieces:
            return []
        is_text = isinstance(block.input, str)
        return self._arguments(block, read_optional_text(block.input) if is_text else json.dumps(block.input))

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
        """Keeps the highest counts, which are totals so far."""
        for name, value in (usage or {}).items():
            if name in _USAGE and (count := read_count(value)) is not None:
                self._usage[name] = max(count, self._usage.get(name, 0))
            elif name == "output_tokens_details":
                self._count(value)


def _state(**values: str) -> bytes:
    return STATE_MARK + replace_surrogates(json.dumps(values, ensure_ascii=False, separators=(",", ":"))).encode()
