"""The fragments of streamed tool calls, and the calls as they grow."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from abstractllm.providers.hosted.json_values import read_optional_text

__all__ = ["Call", "Fragment", "ObjectScanner", "parse_arguments", "read_fragment"]

_STATE_FIELDS = ("extra_content", "provider_specific_fields", "thought_signature")
"""Fields of a call that Gemini's compatible endpoint, and LiteLLM for it, want back with the call."""


@dataclass(slots=True)
class Fragment:
    """One entry of `tool_calls`, read."""

    index: int | None
    id: str
    name: str
    arguments: str
    state: dict[str, Any]
    place: int | None
    """The entry's place in its list, where that has several entries without an index."""


@dataclass(slots=True)
class Call:
    """A call as it grows."""

    index: int | None
    place: int | None
    ids: set[str] = field(default_factory=set)
    """The ids that its fragments had; the first stands in its events."""
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    object: ObjectScanner = field(default_factory=lambda: ObjectScanner())
    state: dict[str, Any] = field(default_factory=dict)
    value: tuple[Any] | None = None
    """The value of its arguments, once it is needed: it is compared with what may repeat it."""
    number: int = -1
    """Its place among the answer's calls, once its first event is out."""
    sent: int = 0
    """The number of its pieces of arguments that are out."""
    is_doubtful: bool = False
    """True if it is none, but a repetition of the last one's name, unless arguments follow."""

    @property
    def is_complete(self) -> bool:
        """True if its arguments are all of a JSON value."""
        if not self.is_wrapped:
            return self.object.is_complete
        if not self.arguments[-1].rstrip().endswith(('"', "]", "l")):
            return False
        text = "".join(self.arguments)
        return bool(parse_arguments(text) != text)

    @property
    def is_wrapped(self) -> bool:
        """True if its arguments are no object, but null, a list, or the object as JSON text once more."""
        return bool(self.arguments) and not self.arguments[0].lstrip().startswith("{")

    def unwrap(self) -> None:
        """Puts the object that they stand for in the place of such arguments; leaves others as they are."""
        value = parse_arguments("".join(self.arguments))
        if isinstance(value, str) and isinstance(parse_arguments(value), dict):
            self.arguments = [value]
        elif value in (None, "", []):
            self.arguments = ["{}"]

    @property
    def is_placeholder(self) -> bool:
        """True if its arguments are an empty object, which some servers send before the real arguments."""
        return len(self.arguments) == 1 and self.arguments[0].strip() == "{}"

    def has_same_arguments(self, text: str) -> bool:
        """Tells whether a text is the same JSON as the arguments so far."""
        if self.value is None:
            self.value = (parse_arguments("".join(self.arguments)),)
        return bool(self.value[0] == parse_arguments(text))


class ObjectScanner:
    """Tells when a JSON object that comes in pieces is complete, with one look at each character."""

    _MARKS = re.compile(r'["\\{}\[\]]')

    def __init__(self) -> None:
        self._depth = 0
        self._began = self._in_string = self._is_escaped = False

    @property
    def is_complete(self) -> bool:
        """True once the object has ended."""
        return self._began and self._depth <= 0

    def feed(self, text: str) -> None:
        """Takes the next piece."""
        at = int(self._is_escaped)
        self._is_escaped = False
        while (match := self._MARKS.search(text, at)) is not None:
            at = match.end()
            match match[0]:
                case "\\":
                    self._is_escaped = self._in_string and at == len(text)
                    at += self._in_string
                case '"':
                    self._in_string = not self._in_string
                case "{" | "[" if not self._in_string:
                    self._began = True
                    self._depth += 1
                case "}" | "]" if not self._in_string:
                    self._depth -= 1


def read_fragment(entry: dict[str, Any], place: int | None) -> Fragment:
    """Reads one entry of `tool_calls`.

    Args:
        entry: The entry.
        place: Its place in the list, if that has several entries.

    Raises:
        AttributeError, TypeError: If it has another shape than that of a call.
    """
    # Some servers leave out the object `function`, and put what it holds into the entry itself.
    function = entry.get("function") or entry
    arguments = function.get("arguments")
    if isinstance(arguments, dict | list):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    index, identity = entry.get("index"), entry.get("id")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool):
        index = None
    if isinstance(identity, int):
        identity = str(identity)
    return Fragment(
        index,
        read_optional_text(identity),
        read_optional_text(function.get("name")),
        read_optional_text(arguments),
        {name: value for name in _STATE_FIELDS if (value := entry.get(name)) is not None},
        place if index is None else None,
    )


def parse_arguments(text: str) -> Any:
    """Returns the value of arguments; the text itself if it is no JSON."""
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
