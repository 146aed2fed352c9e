"""Characters that an API splits between two pieces of an answer, put together again."""

from __future__ import annotations

import dataclasses
from typing import Any

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
)
from abstractllm.validation import replace_surrogates

__all__ = ["WholeCharacters"]

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class WholeCharacters:
    r"""Makes Unicode of the texts of an answer's events.

    JSON may write a character beyond U+FFFF as two surrogates, such as `\ud83d\ude00`, and an API that cuts its text
    between them sends one in each piece. The first is held back until the next piece of the same text. One whose other
    half does not come is replaced by U+FFFD.
    """

    def __init__(self) -> None:
        self._half = ""
        """The first half of a character, which is held back."""
        self._source: type[TextDelta] | type[ReasoningDelta] | int | None = None
        """The text that it belongs to: the answer's, its reasoning, or the arguments of the call with this index."""

    def add(self, event: Event) -> list[Event]:
        """Takes an event; returns the ones to pass on, of which the last takes its place."""
        match event:
            case TextDelta() | ReasoningDelta():
                if not self._half and event.text.isascii():
                    return [event]
                return self._piece(event, type(event), "text", {})
            case ToolCallDelta():
                names = {"id": replace_surrogates(event.id), "name": replace_surrogates(event.name)}
                return self._piece(event, event.index, "arguments_fragment", names)
            case Finished():
                stop, message = replace_surrogates(event.stop_sequence), event.message and _in_unicode(event.message)
                return [*self._without_end(), dataclasses.replace(event, stop_sequence=stop, message=message)]
        return [event]

    def _piece(
        self,
        event: TextDelta | ReasoningDelta | ToolCallDelta,
        source: type[TextDelta] | type[ReasoningDelta] | int,
        field: str,
        changes: dict[str, Any],
    ) -> list[Event]:
        """Takes a piece of a text, which stands in a field of its event."""
        before = [] if source == self._source else self._without_end()
        text = self._half + getattr(event, field)
        self._half, self._source = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else "", source
        text = replace_surrogates(text.removesuffix(self._half))
        return [*before, dataclasses.replace(event, **changes | {field: text})]

    def _without_end(self) -> list[Event]:
        """Returns what is left of a character whose other half has not come."""
        half, self._half = self._half, ""
        if not half or self._source is None:
            return []
        if isinstance(self._source, int):
            return [ToolCallDelta(self._source, arguments_fragment=_NO_CHARACTER)]
        return [self._source(_NO_CHARACTER)]


def _in_unicode(message: ChatMessage) -> ChatMessage:
    parts: list[Part] = []
    for part in message.parts:
        match part:
            case Text() | Reasoning():
                part = dataclasses.replace(part, text=replace_surrogates(part.text))
            case ToolCall():
                part = dataclasses.replace(
                    part,
                    id=replace_surrogates(part.id),
                    name=replace_surrogates(part.name),
                    arguments_json=replace_surrogates(part.arguments_json),
                )
        parts.append(part)
    return dataclasses.replace(message, parts=tuple(parts))
