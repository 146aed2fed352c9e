"""Reading what a message, or a piece of one, says: text, refusal and reasoning in the shapes that servers give them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from abstractllm.providers.hosted.json_values import read_optional_text, text_in
from abstractllm.providers.openai.wire_state import REASONING_FIELDS

__all__ = ["Piece", "StateCollector", "joined_item", "read_pieces"]

_LIST_FIELDS = ("reasoning_details", "thinking_blocks")
"""Lists that OpenRouter and LiteLLM want back as they gave them; their text stands in for a field without any."""
_ALL_REASONING = frozenset((*REASONING_FIELDS, *_LIST_FIELDS))
_OPAQUE_FIELDS = ("reasoning_opaque", "reasoning_signature")
_STATE_FIELDS = frozenset((*_LIST_FIELDS, *_OPAQUE_FIELDS, "extra_content", "reasoning_content"))
_GROWING = ("text", "thinking", "summary")
"""The fields of a list's item that come in pieces."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what a message says."""

    kind: Literal["text", "refusal", "reasoning"]
    text: str
    field: str = ""
    """The field that reasoning came in; empty for an item of `content`."""
    item: Mapping[str, Any] | None = None
    """The item of `content` that reasoning came in."""


def read_pieces(message: Mapping[str, Any]) -> Iterator[Piece]:
    """Yields what a message says, in its order.

    Raises:
        TypeError: If the text is of another type.
    """
    if not _ALL_REASONING.isdisjoint(message):
        field, text = _reasoning(message)
        if text:
            yield Piece("reasoning", text, field)
    content = message.get("content")
    if isinstance(content, list | dict):
        for item in content if isinstance(content, list) else [content]:
            yield from _read_item(item)
    elif text := read_optional_text(content):
        yield Piece("text", text)
    if text := text_in(message.get("refusal")):
        yield Piece("refusal", text)


def _reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    for name in (*REASONING_FIELDS, *_LIST_FIELDS):
        if text := text_in(message.get(name)):
            return name, text
    return "", ""


def _read_item(item: object) -> Iterator[Piece]:
    """Reads an item of `content`: Mistral has text, thinking and references there, others text or refusals."""
    if isinstance(item, str) and (text := text_in(item)):
        yield Piece("text", text)
    if not isinstance(item, Mapping):
        return
    match item.get("type", "text"):
        case "thinking" | "reasoning":
            yield Piece("reasoning", text_in(item), item=item)
        case "refusal" if text := text_in(item.get("refusal")):
            yield Piece("refusal", text)
        case "text" | "output_text" if text := text_in(item.get("text")):
            yield Piece("text", text)


class StateCollector:
    """Collects the fields of an answer's message that its API wants back on the next turn."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._has_empty_reasoning = False

    def add(self, message: Mapping[str, Any]) -> None:
        """Takes the next piece of the message, or all of it."""
        if _STATE_FIELDS.isdisjoint(message):
            return
        for name in _LIST_FIELDS:
            for item in value if isinstance(value := message.get(name), list) else ():
                _join(self._fields.setdefault(name, []), item)
        for name in _OPAQUE_FIELDS:
            if isinstance(value := message.get(name), str) and value:
                self._fields[name] = value
        match message.get("extra_content"):
            case {"google": {"thought_signature": str(signature)}}:
                self._fields["extra_content"] = {"google": {"thought_signature": signature}}
        self._has_empty_reasoning |= message.get("reasoning_content") == ""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the message."""
        return self._fields

    @property
    def has_lists(self) -> bool:
        """True if the reasoning goes back in lists of its own, not as text."""
        return any(name in self._fields for name in _LIST_FIELDS)

    @property
    def empty_reasoning(self) -> dict[str, Any]:
        """The empty `reasoning_content` of an answer without thoughts: DeepSeek wants even that beside its calls."""
        return {"reasoning_content": ""} if self._has_empty_reasoning else {}


def joined_item(items: list[Any]) -> dict[str, Any]:
    """Returns the pieces of one item of `content` as the item that they make."""
    whole: dict[str, Any] = {}
    for item in items:
        for name, value in item.items():
            before = whole.get(name)
            if isinstance(before, list) and isinstance(value, list):
                for entry in value:
                    _join(before, entry)
            elif isinstance(before, str) and isinstance(value, str) and name in _GROWING:
                whole[name] = before + value
            else:
                whole[name] = copy.deepcopy(value)
    return whole


def _join(items: list[Any], item: Any) -> None:
    """Puts an item behind others; one that goes on with the last becomes a part of it."""
    last = items[-1] if items else None
    if isinstance(last, dict) and isinstance(item, Mapping) and _goes_on(last, item):
        for name, value in item.items():
            if name in _GROWING and isinstance(value, str) and isinstance(last.get(name), str):
                last[name] += value
            elif value is not None:
                last[name] = copy.deepcopy(value)
    elif item is not None:
        items.append(copy.deepcopy(item))


def _goes_on(last: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    names = [name for name in _GROWING if isinstance(last.get(name), str)]
    has_ended = bool(last.get("signature")) and any(item.get(name) for name in _GROWING)
    return (
        bool(names)
        and not has_ended
        and last.get("type") == item.get("type")
        and item.get("index", last.get("index")) == last.get("index")
        and item.get("id", last.get("id")) in (last.get("id"), None)
        and "data" not in item
    )
