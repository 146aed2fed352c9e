"""Reading the chunks of a streamed answer, or an answer that came whole.

Compatible servers send more, less and other things than OpenAI: nothing of a chunk is taken for granted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from abstractllm._core.accumulator import AnswerAccumulator
from abstractllm.errors import AbstractLLMError, IncompleteStreamError, ProviderProtocolError
from abstractllm.providers.hosted.error_reports import tells_error
from abstractllm.providers.hosted.event_streams import ServerSentEvent, parse_json
from abstractllm.providers.hosted.finish_reasons import finish_reason_of, known_finish_reason
from abstractllm.providers.hosted.json_values import UNREADABLE, read_count, read_logprobs, read_optional_text
from abstractllm.providers.openai.contents import Piece, StateCollector, joined_item, read_pieces
from abstractllm.providers.openai.errors import error_of_body
from abstractllm.providers.openai.tool_calls import ToolCallReader
from abstractllm.providers.openai.wire_state import WireState
from abstractllm.types import (
    ChatMessage,
    Event,
    Finished,
    FinishReason,
    Part,
    Reasoning,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    Usage,
)

__all__ = ["AnswerReader"]

_STOP_FIELDS = frozenset({"stop_reason", "matched_stop", "stop_sequence", "stopping_word"})
"""The fields in which servers tell the stop sequence: vLLM, SGLang, gateways to Anthropic, llama.cpp."""
_REASON_WORDS = ("stop", "eos", "end_turn", "length", "max_tokens", "tool_use", "tool_calls", "stop_sequence")
"""Words that gateways put there instead of a stop sequence."""


class AnswerReader:
    """Reads one answer, chunk by chunk.

    Args:
        source: The words for the answer in an error, such as `HTTP 200, request req_1`.
        server: The mark of the server that answers, which alone gets back what it wants back on the next turn.
        tools: The names of the request's tools.
        stop: The request's stop sequences.
    """

    def __init__(self, source: str, *, server: str = "", tools: Iterable[str] = (), stop: Iterable[str] = ()) -> None:
        self._source = source
        self._server = server
        self._stop_sequences = tuple(stop)
        self.is_done = False
        """True once the server has said that the stream is over, beside other data."""
        self._chunks = 0
        self._choice: object = None
        """The index of the choice that is read; None before the first."""
        self._has_deltas = False
        self._finish: str | None = None
        self._stop = ""
        self._refused = False
        self._usage = Usage()
        self._calls = ToolCallReader(tools)
        self._has_tool_calls = False
        self._state = StateCollector()
        self._reasoning: list[tuple[str, list[Any]]] = []
        """Of each part with reasoning: the field that it came in, or the items of `content`."""
        self._last_kind = ""
        self._answer = AnswerAccumulator()
        self._text: list[str] = []

    @property
    def whole(self) -> bool:
        """True once the answer has ended; only the usage may be missing."""
        return self._finish is not None

    def read(self, chunk: Any, name: str = "") -> list[Event]:
        """Returns the events that a chunk holds.

        Args:
            chunk: The chunk.
            name: The type of the event that it came in; `error` for an error.

        Raises:
            ProviderProtocolError: If it cannot be read.
            AbstractLLMError: The error that it reports.
        """
        self._chunks += 1
        with self._reading("a chunk of the answer"):
            if name == "error":
                self._fail((chunk.get("error") if isinstance(chunk, Mapping) else None) or chunk)
            return self._read(chunk)

    def read_event(self, event: ServerSentEvent) -> list[Event] | None:
        """Returns the events of ours that one of an event stream holds; None for the one that ends the stream.

        Raises:
            ProviderProtocolError: If it cannot be read.
            AbstractLLMError: The error that it reports.
        """
        data = event.data.strip()
        if data.strip('"').startswith("[DONE]"):
            return None
        is_own = event.name not in ("", "message", "error")
        try:
            chunk = parse_json(data) if data else None
        except ValueError as error:
            if event.name == "error":
                self._fail(data)
            if "\n" in data:
                return self._read_lines(event)
            # An event of a gateway's own, such as a ping or the price of an answer that is whole, or a chunk that the
            # end of the stream has cut off.
            if event.is_cut or is_own or self.whole:
                return []
            raise self._unreadable("a chunk of the answer", event.fault(error)) from error
        if chunk is None or (is_own and not isinstance(chunk, Mapping)):
            return []
        return self.read(chunk, event.name)

    def _read_lines(self, event: ServerSentEvent) -> list[Event] | None:
        """Reads an event whose lines are chunks each: some servers leave out the empty lines between events."""
        events: list[Event] = []
        for line in event.data.split("\n"):
            line_events = self.read_event(dataclasses.replace(event, data=line))
            if line_events is None:
                # What came before the end has been read; what is left of the stream says nothing.
                self.is_done = True
                break
            events += line_events
        return events

    def read_whole(self, body: Any) -> list[Event]:
        """Returns the events of an answer that came in one piece; errors as `read`."""
        self._chunks += 1
        with self._reading("the answer"):
            return self._read(body)

    def rest(self) -> list[Event]:
        """Returns what was held back until there are no more chunks; errors as `read`."""
        with self._reading("the answer"):
            is_cut = self._finish is not None and known_finish_reason(self._finish) is FinishReason.MAX_TOKENS
            return self._noted(list(self._calls.end(is_cut=is_cut)))

    def finished(self) -> Finished:
        """Returns the last event, once there are no more chunks, and after `rest`.

        Raises:
            ProviderProtocolError: If there was no answer at all.
            IncompleteStreamError: If it has no finish reason, or an unknown one.
        """
        if self._finish is None:
            if self._choice is None:
                content = "chunks without choices" if self._chunks else "no event of an event stream"
                raise ProviderProtocolError(f"the answer holds {content} ({self._source})")
            raise IncompleteStreamError(f"the answer ended without a finish reason ({self._source})")
        return Finished(self._finish_reason(self._finish), self._stop, self._usage, message=self._message())

    @contextmanager
    def _reading(self, subject: str) -> Iterator[None]:
        """Turns the errors of JSON of an unknown shape into the library's."""
        try:
            yield
        except AbstractLLMError:  # some are ValueErrors, too
            raise
        except UNREADABLE as error:
            raise self._unreadable(subject, f"{type(error).__name__}: {str(error)[:200]}") from error

    def _unreadable(self, subject: str, fault: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"{subject} cannot be read: {fault} ({self._source})")

    def _fail(self, error: Any) -> None:
        raise error_of_body(error, self._source)

    def _finish_reason(self, word: str) -> FinishReason:
        reason = finish_reason_of(word, self._source)
        if reason is FinishReason.STOP_SEQUENCE and not self._stop and len(self._stop_sequences) == 1:
            (self._stop,) = self._stop_sequences
        if reason is not FinishReason.STOP:
            return reason
        # A call that `tool_choice` forced, and every call of some compatible servers, ends with `stop`.
        if self._calls:
            return FinishReason.TOOL_CALLS
        if self._refused:
            return FinishReason.REFUSAL
        return FinishReason.STOP_SEQUENCE if self._stop else FinishReason.STOP

    def _read(self, chunk: Any) -> list[Event]:
        if isinstance(chunk, list) and any(isinstance(item, Mapping) and item.get("error") for item in chunk):
            self._fail(chunk)  # Gemini's endpoint puts an error into a list
        if error := chunk.get("error"):
            self._fail(error)
        if chunk.get("object") == "error" or (chunk.get("choices") is None and tells_error(chunk)):
            self._fail(chunk)
        self._count(chunk.get("usage"))
        if isinstance(groq := chunk.get("x_groq"), Mapping):
            if error := groq.get("error"):
                self._fail(error)
            self._count(groq.get("usage"))
        events: list[Event] = []
        choices = [(_index(choice), choice) for choice in chunk.get("choices") or () if choice is not None]
        if choices and self._choice is None:
            # The first that comes is the answer, whatever its index: there is only one, unless `extra_body` has more.
            self._choice = 0 if any(index == 0 for index, _ in choices) else choices[0][0]
        for index, choice in choices:
            if index == self._choice:
                events += self._read_choice(choice)
        return events

    def _read_choice(self, choice: dict[str, Any]) -> list[Event]:
        if error := choice.get("error"):
            self._fail(error)
        self._count(choice.get("usage"))
        is_last = bool(choice.get("finish_reason"))
        delta, message = choice.get("delta") or {}, choice.get("message") or {}
        self._has_deltas |= "delta" in choice
        if message and not any(value for name, value in delta.items() if name != "role"):
            message = self._unsaid(message, is_last)
            events = self._read_message(message, choice, is_last=is_last, is_whole=is_last or self._has_deltas)
        else:
            events = self._read_message(delta, choice, is_last=is_last)
        events = self._noted(events)
        self._end(choice)
        return events

    def _unsaid(self, message: dict[str, Any], is_last: bool) -> dict[str, Any]:
        """Returns a message without what has been read: beside deltas, and at the end, servers repeat all of it."""
        if not self._last_kind or not (self._has_deltas or is_last):
            return message
        message = {name: value for name, value in message.items() if name in ("content", "tool_calls", "function_call")}
        before = "".join(self._text)
        content = "".join(piece.text for piece in read_pieces(message))
        if content.startswith(before):
            return message | {"content": content[len(before) :]}
        return message | {"content": None} if self._has_deltas else message

    def _read_message(
        self, message: Any, choice: dict[str, Any], *, is_last: bool, is_whole: bool = False
    ) -> list[Event]:
        """Reads a message, or a piece of one."""
        self._state.add(message)
        events: list[Event] = []
        logprobs = read_logprobs(choice.get("logprobs"))
        pieces = list(read_pieces(message))
        if not any(piece.kind != "reasoning" for piece in pieces) and not is_whole:
            # Servers that began with the older Completions put the text beside the message.
            pieces += [Piece("text", text)] if (text := read_optional_text(choice.get("text"))) else []
        for piece in pieces:
            if piece.kind == "reasoning":
                if piece.text:
                    self._begin_reasoning(piece)
                    events.append(ReasoningDelta(piece.text))
                elif piece.item is not None and self._last_kind == "reasoning":
                    self._reasoning[-1][1].append(piece.item)
                continue
            self._refused |= piece.kind == "refusal"
            self._last_kind = "text"
            self._text.append(piece.text)
            events.append(TextDelta(piece.text, logprobs))
            logprobs = ()
        if logprobs:
            events.append(TextDelta("", logprobs))
        entries = message.get("tool_calls") or []
        if not isinstance(entries, list):
            entries = [entries] if isinstance(entries, Mapping) else []
        self._has_tool_calls |= bool(entries)
        if not self._has_tool_calls and (function := message.get("function_call")):
            entries = [{"function": function}]
        if entries:
            self._last_kind = "call"
            events += self._calls.read(entries, is_whole=is_whole, is_last=is_last)
        return events

    def _begin_reasoning(self, piece: Piece) -> None:
        if self._last_kind != "reasoning":
            self._reasoning.append((piece.field, []))
        self._last_kind = "reasoning"
        if piece.item is not None:
            self._reasoning[-1][1].append(piece.item)

    def _noted(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._answer.add(event)
        return events

    def _end(self, choice: dict[str, Any]) -> None:
        """Notes the reason for the end; a later one that is empty, or tells less, takes nothing back."""
        for name in _STOP_FIELDS.intersection(choice):
            stop = choice[name]
            if isinstance(stop, str) and stop and (stop in self._stop_sequences or stop not in _REASON_WORDS):
                self._stop = read_optional_text(stop)
        reason = choice.get("finish_reason")
        if isinstance(reason, Mapping):  # SGLang's own form
            reason = reason.get("type")
        if not reason:
            return
        meaning = known_finish_reason(str(reason))
        before = known_finish_reason(self._finish) if self._finish is not None else None
        if self._finish is None or before is None or (before is FinishReason.STOP and meaning is not None):
            self._finish = str(reason)

    def _count(self, usage: object) -> None:
        """Takes counts of tokens, which are totals so far: where they come more than once, the highest are right."""
        if not isinstance(usage, Mapping):
            return
        counts = _usage(usage)
        for name in counts.__slots__:
            values = [value for value in (getattr(self._usage, name), getattr(counts, name)) if value is not None]
            if values:
                self._usage = dataclasses.replace(self._usage, **{name: max(values)})

    def _message(self) -> ChatMessage:
        """Returns the answer as a message whose parts hold what is to be sent back with them."""
        message = self._answer.message()
        fields = self._state.fields
        if self._calls and not self._reasoning:
            fields = self._state.empty_reasoning | fields
        reasoning, calls = iter(self._reasoning), self._calls.states
        parts: list[Part] = []
        number = 0
        for part in message.parts:
            state = WireState(self._server, message={} if parts else fields)
            match part:
                case Reasoning():
                    field, items = next(reasoning)
                    if items:
                        state = dataclasses.replace(state, content=[joined_item(items)])
                    elif not self._state.has_lists:
                        state = dataclasses.replace(state, text_field=field)
                case ToolCall():
                    state = dataclasses.replace(state, call=calls.get(number, {}))
                    number += 1
            parts.append(dataclasses.replace(part, provider_state=state.to_bytes()))
        if not parts and fields:
            parts.append(Reasoning("", WireState(self._server, message=fields).to_bytes()))
        return ChatMessage(message.role, tuple(parts))


def _index(choice: Mapping[str, Any]) -> object:
    index = choice.get("index")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    return index or 0


def _usage(usage: Mapping[str, Any]) -> Usage:
    return Usage(
        input_tokens=_first_count(usage, ("prompt_tokens", "input_tokens")),
        output_tokens=_first_count(usage, ("completion_tokens", "output_tokens")),
        cached_input_tokens=_first_count(
            usage,
            ("cached_tokens", "prompt_cache_hit_tokens"),
            usage.get("prompt_tokens_details") or usage.get("input_tokens_details"),
        ),
        reasoning_tokens=_first_count(
            usage,
            ("reasoning_tokens",),
            usage.get("completion_tokens_details") or usage.get("output_tokens_details"),
        ),
    )


def _first_count(usage: Mapping[str, Any], names: tuple[str, ...], details: object = None) -> int | None:
    """Returns the first count that is told under one of its names, of the details before those of the usage itself."""
    holders = [details, usage] if isinstance(details, Mapping) else [usage]
    counts = (read_count(holder.get(name)) for holder in holders for name in names)
    return next((count for count in counts if count is not None), None)
