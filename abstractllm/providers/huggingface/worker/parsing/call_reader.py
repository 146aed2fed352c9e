"""Reading the tool calls of an answer."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.argument_types import ArgumentTypes
from abstractllm.providers.huggingface.worker.parsing.call_formats import CallFormat
from abstractllm.providers.huggingface.worker.parsing.json_reader import read_json
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader

__all__ = ["ID_LENGTH", "CallReader"]

ID_LENGTH = 9
"""Letters and digits of a call's id: Mistral's templates insist on this many, others take any id."""
_ID_CHARACTERS = string.ascii_letters + string.digits
_LONGEST_NAME = 200
_LONGEST_VALUE = 1 << 20
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


class CallReader:
    """Reads the calls of one answer.

    Nothing of a call is emitted until it has named an offered tool and its arguments begin.

    Args:
        reader: The answer.
        tools: The schemas of the offered tools' arguments, by name.
        emit: Called with each piece of a call.
    """

    def __init__(
        self, reader: Reader, tools: Mapping[str, Mapping[str, Any]], emit: Callable[[CallPiece], None]
    ) -> None:
        self._reader = reader
        self._tools = tools
        self._emit = emit
        self._begun = 0
        """Calls of which something has been emitted."""
        self.complete = 0
        """Calls whose arguments are complete."""
        self.emitted_to = -1
        """The place up to which the text has been emitted as part of a call; -1 before."""

    def read(self, format: CallFormat) -> Parsing[bool]:
        """Reads what follows an opening.

        Returns:
            Whether it was well formed; if not, the reader stands at the first character that is wrong.
        """
        match format.body:
            case "json":
                is_valid = yield from self._objects(is_bare=not format.opening)
            case "named":
                is_valid = yield from self._named(format.separator)
            case _:
                is_valid = yield from self._elements()
        if is_valid and format.closing and (yield from self._reader.skip_space()):
            is_valid = yield from self._reader.take(format.closing)
        return is_valid

    def _objects(self, is_bare: bool) -> Parsing[bool]:
        """Reads one call, or a list of calls; without an opening, also calls with semicolons between them."""
        reader = self._reader
        if (yield from reader.skip_space()) != "[":
            is_valid = yield from self._object()
            while is_valid and is_bare and (yield from reader.skip_space()) == ";":
                reader.place += 1
                is_valid = yield from self._object()
            return is_valid
        reader.place += 1
        while True:
            if not (yield from self._object()):
                return False
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
            call.is_emitted = yield from self._stream_arguments(call.name)
            return call.is_emitted
        pieces: list[str] = []
        if not (yield from read_json(reader, pieces.append)):
            return False
        value = "".join(pieces)
        if key in _NAME_KEYS and first_character == '"' and not call.name:
            call.name = json.loads(value)
            if call.name not in self._tools:
                return False
        elif key in _ARGUMENTS_KEYS:
            call.arguments = _as_object(value)
            if not call.arguments:
                return False
        if call.name and call.arguments and not call.is_emitted:
            self._emit_call(call.name, call.arguments)
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
        self._emit_call(call.name, "{}")
        return True

    def _named(self, separator: str) -> Parsing[bool]:
        """Reads a name, a separator and the arguments."""
        title = yield from self._reader.take_until(separator, _LONGEST_NAME)
        name = (title or "").partition("[CALL_ID]")[0].strip()
        if name not in self._tools or (yield from self._reader.skip_space()) != "{":
            return False
        return (yield from self._stream_arguments(name))

    def _elements(self) -> Parsing[bool]:
        """Reads an element with the name that holds an element for each argument."""
        reader = self._reader
        yield from reader.skip_space()
        if not (yield from reader.take("<function=")):
            return False
        name = ((yield from reader.take_until(">", _LONGEST_NAME)) or "").strip()
        if name not in self._tools:
            return False
        types = ArgumentTypes(self._tools[name])
        is_first = True
        while True:
            yield from reader.skip_space()
            if not (yield from reader.take("<")):
                return False
            if (yield from reader.peek()) == "/":
                break
            parameter = yield from self._parameter()
            if parameter is None:
                return False
            if is_first:
                self._begin(name)
            key, text = parameter
            value = types.as_json(key, text)
            self._emit_arguments(f"{'{' if is_first else ', '}{json.dumps(key, ensure_ascii=False)}: {value}")
            is_first = False
        if not (yield from reader.take("/function>")):
            return False
        if is_first:
            self._begin(name)
        self._emit_arguments("{}" if is_first else "}")
        self.complete += 1
        return True

    def _parameter(self) -> Parsing[tuple[str, str] | None]:
        """Reads the rest of an element behind its `<`: the argument's key and text, or None if it is malformed."""
        reader = self._reader
        if not (yield from reader.take("parameter=")):
            return None
        key = yield from reader.take_until(">", _LONGEST_NAME)
        if key is None:
            return None
        text = yield from reader.take_until("</parameter>", _LONGEST_VALUE)
        if text is None:
            return None
        return key, text.removeprefix("\n").removesuffix("\n")

    def _stream_arguments(self, name: str) -> Parsing[bool]:
        """Begins a call and emits its arguments as they come."""
        self._begin(name)
        if not (yield from read_json(self._reader, self._emit_arguments)):
            return False
        self.complete += 1
        return True

    def _emit_call(self, name: str, arguments: str) -> None:
        """Emits a call whose arguments are complete."""
        self._begin(name)
        self._emit_arguments(arguments)
        self.complete += 1

    def _begin(self, name: str) -> None:
        call_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(ID_LENGTH))
        self._emit(CallPiece(self._begun, call_id, name, ""))
        self._begun += 1
        self.emitted_to = self._reader.place

    def _emit_arguments(self, fragment: str) -> None:
        self._emit(CallPiece(self._begun - 1, "", "", fragment))
        self.emitted_to = self._reader.place


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
