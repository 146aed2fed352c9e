"""An answer as it grows from its events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from abstractllm.errors import IncompleteStreamError
from abstractllm.types import (
    ChatMessage,
    Completion,
    Event,
    Finished,
    Part,
    Reasoning,
    ReasoningDelta,
    Role,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

__all__ = ["AnswerAccumulator", "fold"]


class AnswerAccumulator:
    """The part of an answer that has arrived, without its log-probabilities: these are many times larger than it."""

    def __init__(self) -> None:
        self._pieces: list[tuple[type[Text] | type[Reasoning] | int, list[str]]] = []
        """The parts in their order: what they are, or a call's index, and what they are made of."""
        self._calls: dict[int, list[str]] = {}
        self._names: dict[int, tuple[str, str]] = {}

    def add(self, event: Event) -> None:
        """Takes the next event."""
        match event:
            case TextDelta():
                self._append(Text, event.text)
            case ReasoningDelta():
                self._append(Reasoning, event.text)
            case ToolCallDelta():
                if event.id or event.name:
                    self._names[event.index] = (event.id, event.name)
                if event.index not in self._calls:
                    self._calls[event.index] = []
                    self._pieces.append((event.index, self._calls[event.index]))
                self._calls[event.index].append(event.arguments_fragment)
            case _:
                raise TypeError(f"an answer has no place for {event!r:.200}")

    def _append(self, kind: type[Text] | type[Reasoning], text: str) -> None:
        if not self._pieces or self._pieces[-1][0] is not kind:
            if not text:
                return
            self._pieces.append((kind, []))
        self._pieces[-1][1].append(text)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join("".join(pieces) for kind, pieces in self._pieces if kind is Text)

    def message(self) -> ChatMessage:
        """The answer as a message, its parts in the order in which they began."""
        parts: list[Part] = []
        for kind, pieces in self._pieces:
            if isinstance(kind, int):
                call_id, name = self._names.get(kind, ("", ""))
                parts.append(ToolCall(call_id, name, "".join(pieces) or "{}"))
            else:
                parts.append(kind("".join(pieces)))
        return ChatMessage(Role.ASSISTANT, tuple(parts))


async def fold(events: AsyncGenerator[Event, None]) -> Completion:
    """Folds a whole stream of events into one answer.

    Raises:
        IncompleteStreamError: If the stream ends without `Finished`.
    """
    answer = AnswerAccumulator()
    logprobs: list[TokenLogprob] = []
    started: Started | None = None
    async with aclosing(events):
        async for event in events:
            match event:
                case Started():
                    started = event
                case Finished() if started is not None:
                    return Completion(
                        id=started.id,
                        text=answer.text,
                        message=event.message or answer.message(),
                        finish_reason=event.finish_reason,
                        stop_sequence=event.stop_sequence,
                        usage=event.usage,
                        llm=started.llm,
                        provider=started.provider,
                        model=started.model,
                        attempts=event.attempts,
                        timing=event.timing,
                        logprobs=tuple(logprobs),
                        dropped_parameters=started.dropped_parameters,
                    )
                case _:
                    answer.add(event)
                    if isinstance(event, TextDelta):
                        logprobs.extend(event.logprobs)
    raise IncompleteStreamError("the answer ended without a finish reason", partial_text=answer.text)
