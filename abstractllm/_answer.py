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

__all__ = ["Answer", "fold"]


class Answer:
    """The part of an answer that has arrived."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._logprobs: list[TokenLogprob] = []

    def add(self, event: Event) -> None:
        """Takes the next event."""
        match event:
            case TextDelta():
                self._text.append(event.text)
                self._logprobs.extend(event.logprobs)
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case ToolCallDelta():
                if event.id or event.name:
                    self._names[event.index] = (event.id, event.name)
                self._calls.setdefault(event.index, []).append(event.arguments_fragment)
            case _:
                raise TypeError(f"an answer has no place for {event!r:.200}")

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities so far."""
        return tuple(self._logprobs)

    def message(self) -> ChatMessage:
        """The answer as a message: reasoning, text, tool calls."""
        parts: list[Part] = []
        if self._reasoning:
            parts.append(Reasoning("".join(self._reasoning)))
        if self.text:
            parts.append(Text(self.text))
        for index, fragments in sorted(self._calls.items()):
            call_id, name = self._names.get(index, ("", ""))
            parts.append(ToolCall(call_id, name, "".join(fragments) or "{}"))
        return ChatMessage(Role.ASSISTANT, tuple(parts))


async def fold(events: AsyncGenerator[Event, None]) -> Completion:
    """Folds a whole stream of events into one answer.

    Raises:
        IncompleteStreamError: If the stream ends without `Finished`.
    """
    answer = Answer()
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
                        logprobs=answer.logprobs,
                        dropped_parameters=started.dropped_parameters,
                    )
                case _:
                    answer.add(event)
    raise IncompleteStreamError("the answer ended without a finish reason", partial_text=answer.text)
