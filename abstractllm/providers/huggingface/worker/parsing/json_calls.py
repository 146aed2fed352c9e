"""Reading calls that are written as JSON objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.worker.parsing.call_emitter import CallEmitter
from abstractllm.providers.huggingface.worker.parsing.json_reader import read_json
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader

__all__ = ["JsonCalls"]

_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENTS_KEYS = ("arguments", "parameters")


@dataclass(slots=True)
class _CallObject:
    """A call that is written as a JSON object, as far as it has been read."""

    name: str = ""
    arguments: str = ""
    """The arguments, where they came before the name or as a string."""
    is_emitted: bool = False
    """True once the call and its arguments have been emitted."""


class JsonCalls:
    """Reads the calls of one answer that are JSON objects.

    Args:
        reader: The answer.
        calls: Emits the calls.
    """

    def __init__(self, reader: Reader, calls: CallEmitter) -> None:
        self._reader = reader
        self._calls = calls

    def objects(self, is_bare: bool) -> Parsing[bool]:
        """Reads one call, a list of calls, or calls behind each other; without an opening, with semicolons between.

        Returns:
            Whether they were well formed.
        """
        reader = self._reader
        if (yield from reader.skip_space()) != "[":
            is_valid = yield from self._object()
            while is_valid and (yield from reader.skip_space()) == (";" if is_bare else "{"):
                reader.place += is_bare
                is_valid = yield from self._object()
            return is_valid
        reader.place += 1
        while True:
            if not (yield from self._object()):
                return False
            if (yield from reader.skip_space()) != ",":
                return (yield from reader.take("]"))
            reader.place += 1

    def keyed(self) -> Parsing[bool]:
        """Reads one call, or a list of calls, each an object whose one key is the tool's name.

        Returns:
            Whether they were well formed.
        """
        reader = self._reader
        is_list = (yield from reader.skip_space()) == "["
        reader.place += is_list
        while True:
            yield from reader.skip_space()
            if not (yield from reader.take("{")):
                return False
            name = yield from self._key()
            if name is None or name not in self._calls.tools or (yield from reader.skip_space()) != "{":
                return False
            if not (yield from self._calls.stream_arguments(name)):
                return False
            yield from reader.skip_space()
            if not (yield from reader.take("}")):
                return False
            if not is_list:
                return True
            if (yield from reader.skip_space()) != ",":
                return (yield from reader.take("]"))
            reader.place += 1

    def _object(self) -> Parsing[bool]:
        """Reads one call: an object with a name and arguments in any order, whose closing brace may be missing."""
        reader = self._reader
        if (yield from reader.skip_space()) != "{":
            return False
        reader.place += 1
        call = _CallObject()
        while (yield from self._member(call)):
            character = yield from reader.skip_space()
            if character == ",":
                reader.place += 1
                continue
            if not self._finish(call, is_closed=character == "}"):
                return False
            if character == "}":
                reader.place += 1
            return True
        return False

    def _member(self, call: _CallObject) -> Parsing[bool]:
        """Reads one key and its value, and emits what of the call is known then."""
        reader = self._reader
        key = yield from self._key()
        if key is None:
            return False
        first_character = yield from reader.skip_space()
        if key in _ARGUMENTS_KEYS and call.name and first_character == "{" and not call.is_emitted:
            call.is_emitted = yield from self._calls.stream_arguments(call.name)
            return call.is_emitted
        pieces: list[str] = []
        if not (yield from read_json(reader, pieces.append)):
            return False
        value = "".join(pieces)
        if key in _NAME_KEYS and first_character == '"' and not call.name:
            call.name = json.loads(value)
            if call.name not in self._calls.tools:
                return False
        elif key in _ARGUMENTS_KEYS:
            call.arguments = _as_object(value)
            if not call.arguments:
                return False
        if call.name and call.arguments and not call.is_emitted:
            self._calls.emit_call(call.name, call.arguments)
            call.is_emitted = True
        return True

    def _key(self) -> Parsing[str | None]:
        """Reads a key and the colon behind it; None if there is something else."""
        reader = self._reader
        pieces: list[str] = []
        if (yield from reader.skip_space()) != '"' or not (yield from read_json(reader, pieces.append)):
            return None
        yield from reader.skip_space()
        if not (yield from reader.take(":")):
            return None
        return str(json.loads("".join(pieces)))

    def _finish(self, call: _CallObject, is_closed: bool) -> bool:
        """Finishes a call at the end of its object; one without arguments is emitted now.

        Returns:
            Whether the call may end here.
        """
        if call.is_emitted:
            return True
        if not is_closed or not call.name:
            return False
        self._calls.emit_call(call.name, "{}")
        return True


def _as_object(text: str) -> str:
    """Returns arguments as JSON, also those that are written as a string which holds JSON.

    Returns:
        The arguments; empty if they are not an object.
    """
    try:
        value = _parse(text)
        if isinstance(value, str):
            text, value = value, _parse(value)
        text.encode()
    except (ValueError, RecursionError):
        return ""
    return text if isinstance(value, dict) else ""


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
