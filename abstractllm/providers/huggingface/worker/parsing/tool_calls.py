"""How models write tool calls, and reading them."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from abstractllm.providers.huggingface.protocol.messages import CallPiece
from abstractllm.providers.huggingface.worker.parsing.reader import Parsing, Reader, read_json

__all__ = ["FORMATS", "ID_LENGTH", "CallFormat", "CallReader"]

ID_LENGTH = 9
"""Of a call's id, letters and digits: what Mistral's templates insist on; others take any id."""
_ID_CHARACTERS = string.ascii_letters + string.digits
_LONGEST_NAME = 200
_LONGEST_VALUE = 1 << 20
_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A way of writing calls."""

    body: str
    """`json`: an object with a name and arguments, or a list of such; `named`: the name, `separator`, the arguments
    as JSON; `elements`: `<function=NAME>` with a `<parameter=KEY>` for each argument."""
    opening: str
    """Begins calls; empty if an answer that begins with an object may be one."""
    closing: str = ""
    separator: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts that may be special tokens."""
        return tuple(marker for marker in (self.opening, self.separator, self.closing) if marker)


FORMATS = (
    CallFormat("elements", "<tool_call>", "</tool_call>"),  # Qwen3-Coder, Qwen 3.5
    CallFormat("json", "<tool_call>", "</tool_call>"),  # Hermes, Qwen 2.5, Qwen 3, Granite 4, SmolLM 3
    CallFormat("named", "[TOOL_CALLS]", "", "[ARGS]"),  # Mistral since version 11 of its format
    CallFormat("json", "[TOOL_CALLS]"),  # Mistral before
    CallFormat("json", "<|tool_call|>", "<|/tool_call|>"),  # Phi-4-mini
    CallFormat("json", "<|tool_call|>"),  # Granite 3
    CallFormat("json", "<|python_tag|>"),  # Llama 3, where the template writes the tag
    CallFormat("json", ""),  # Llama 3
)
"""The formats that are known; of two that would read the same, the more particular comes first."""


class CallReader:
    """Reads the calls of one answer.

    A call begins when its name is known to be that of an offered tool and its arguments begin; until then nothing is
    given out.

    Args:
        reader: The answer.
        tools: The schemas of the offered tools' arguments, by name.
        emit: Is given the pieces of calls.
    """

    def __init__(
        self, reader: Reader, tools: Mapping[str, Mapping[str, Any]], emit: Callable[[CallPiece], None]
    ) -> None:
        self._reader = reader
        self._tools = tools
        self._emit = emit
        self._begun = 0
        self.complete = 0
        """Calls whose arguments are whole."""
        self.kept = -1
        """The place up to which the text has become part of a call; -1 before."""

    def read(self, format: CallFormat) -> Parsing[bool]:
        """Reads what follows an opening.

        Returns:
            Whether it was well formed; if not, the reader stands at the first character that is wrong.
        """
        match format.body:
            case "json":
                good = yield from self._objects(is_bare=not format.opening)
            case "named":
                good = yield from self._named(format.separator)
            case _:
                good = yield from self._elements()
        if good and format.closing and (yield from self._reader.skip_space()):
            good = yield from self._reader.take(format.closing)
        return good

    def _objects(self, is_bare: bool) -> Parsing[bool]:
        reader = self._reader
        if (yield from reader.skip_space()) != "[":
            good = yield from self._object()
            while good and is_bare and (yield from reader.skip_space()) == ";":
                reader.place += 1
                good = yield from self._object()
            return good
        reader.place += 1
        while True:
            if not (yield from self._object()):
                return False
            character = yield from reader.skip_space()
            if character != ",":
                return (yield from reader.take("]"))
            reader.place += 1

    def _object(self) -> Parsing[bool]:
        """One call, its name and arguments in any order; a missing brace at its end is forgiven."""
        reader = self._reader
        if (yield from reader.skip_space()) != "{":
            return False
        reader.place += 1
        name, early, is_whole = "", "", False
        while True:
            key: list[str] = []
            if (yield from reader.skip_space()) != '"' or not (yield from read_json(reader, key.append)):
                return False
            yield from reader.skip_space()
            if not (yield from reader.take(":")):
                return False
            member = json.loads("".join(key))
            first = yield from reader.skip_space()
            if member in _ARGUMENTS and name and first == "{" and not is_whole:
                if not (yield from self._stream(name)):
                    return False
                is_whole = True
            else:
                value: list[str] = []
                if not (yield from read_json(reader, value.append)):
                    return False
                if member in _NAMES and not name and first == '"':
                    name = json.loads("".join(value))
                    if name not in self._tools:
                        return False
                elif member in _ARGUMENTS:
                    early = _as_object("".join(value))
                    if not early:
                        return False
                if name and early and not is_whole:
                    self._give(name, early)
                    is_whole = True
            character = yield from reader.skip_space()
            if character == ",":
                reader.place += 1
                continue
            if character != "}" and not is_whole:
                return False
            if not is_whole:
                if not name:
                    return False
                self._give(name, "{}")
            if character == "}":
                reader.place += 1
            return True

    def _named(self, separator: str) -> Parsing[bool]:
        written = yield from self._reader.take_until(separator, _LONGEST_NAME)
        name = (written or "").partition("[CALL_ID]")[0].strip()
        if name not in self._tools or (yield from self._reader.skip_space()) != "{":
            return False
        return (yield from self._stream(name))

    def _elements(self) -> Parsing[bool]:
        reader = self._reader
        yield from reader.skip_space()
        if not (yield from reader.take("<function=")):
            return False
        name = ((yield from reader.take_until(">", _LONGEST_NAME)) or "").strip()
        if name not in self._tools:
            return False
        properties = self._tools[name].get("properties")
        properties = properties if isinstance(properties, dict) else {}
        before = "{"
        while True:
            yield from reader.skip_space()
            if not (yield from reader.take("<")):
                return False
            if (yield from reader.peek()) == "/":
                break
            if not (yield from reader.take("parameter=")):
                return False
            key = yield from reader.take_until(">", _LONGEST_NAME)
            value = None if key is None else (yield from reader.take_until("</parameter>", _LONGEST_VALUE))
            if key is None or value is None:
                return False
            if before == "{":
                self._begin(name)
            written = _as_json(value.removeprefix("\n").removesuffix("\n"), properties.get(key))
            self._continue(f"{before}{json.dumps(key, ensure_ascii=False)}: {written}")
            before = ", "
        if not (yield from reader.take("/function>")):
            return False
        if before == "{":
            self._begin(name)
        self._continue("{}" if before == "{" else "}")
        self.complete += 1
        return True

    def _stream(self, name: str) -> Parsing[bool]:
        """Gives out arguments as they come."""
        self._begin(name)
        if not (yield from read_json(self._reader, self._continue)):
            return False
        self.complete += 1
        return True

    def _give(self, name: str, arguments: str) -> None:
        self._begin(name)
        self._continue(arguments)
        self.complete += 1

    def _begin(self, name: str) -> None:
        call_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(ID_LENGTH))
        self._emit(CallPiece(self._begun, call_id, name, ""))
        self._begun += 1
        self.kept = self._reader.place

    def _continue(self, fragment: str) -> None:
        self._emit(CallPiece(self._begun - 1, "", "", fragment))
        self.kept = self._reader.place


def _as_object(written: str) -> str:
    """Arguments that came before their name, or as a string that holds JSON; empty if they are no object."""
    try:
        value = _parse(written)
        if isinstance(value, str):
            written, value = value, _parse(value)
        written.encode()
    except (ValueError, RecursionError):
        return ""
    return written if isinstance(value, dict) else ""


def _as_json(written: str, schema: Any) -> str:
    """An argument that is written as plain text, as JSON of a type that the tool's schema allows."""
    kinds = schema.get("type") if isinstance(schema, dict) else "string"
    if kinds != "string":
        try:
            value = _parse(written)
        except (ValueError, RecursionError):
            pass
        else:
            kinds = kinds if isinstance(kinds, list) else [kinds]
            if not isinstance(value, str) and not ("string" in kinds and _kind(value) not in kinds):
                return written.strip()
    return json.dumps(written, ensure_ascii=False)


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"
