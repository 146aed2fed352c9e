"""Reading a call's arguments from Python's literals and from objects whose keys have no quotes."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

__all__ = ["arguments_of_bare_object", "arguments_of_python_call"]

_CLOSERS = {"[": "]", "{": "}"}
_JSON_NAMES = {"true": True, "false": False, "null": None}
"""Constants of JSON, which models write in Python calls, too."""
_LONGEST_PYTHON_CALL = 1 << 16
"""Characters of a call that Python's parser is given."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BARE_END = re.compile(r"[,}\]]")
_SPACE = re.compile(r"\s*")
_DEEPEST = 64


def arguments_of_python_call(text: str) -> str:
    """Returns the arguments of a call such as `(city="Paris", days=[1, 2])`, brackets included, as JSON.

    Raises:
        ValueError: If they are not named, or no literals.
    """
    if len(text) > _LONGEST_PYTHON_CALL:
        raise ValueError(f"a call of {len(text)} characters is longer than {_LONGEST_PYTHON_CALL}")
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("the arguments have no names")
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("the arguments have no names")
        values = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is no call: {error}") from error


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _literal(value) for key, value in zip(keys, values, strict=True)}
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case _:
            raise ValueError("it is no literal")


def _key(node: ast.expr | None) -> str:
    value = None if node is None else _literal(node)
    if not isinstance(value, str):
        raise ValueError("a key is a string")
    return value


def arguments_of_bare_object(text: str, quote: str) -> str:
    """Returns an object whose keys have no quotes, and whose strings have quotes of their own, as JSON.

    Args:
        text: The object, such as `{city:<|"|>Paris<|"|>,days:3}`.
        quote: The text around strings; JSON's own quotes are understood, too.

    Raises:
        ValueError: If it is something else.
    """
    value, place = _bare_value(text, 0, quote, 0)
    if text[place:].strip() or not isinstance(value, dict):
        raise ValueError("it is no object")
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _bare_value(text: str, place: int, quote: str, level: int) -> tuple[Any, int]:
    """Returns the value that begins at a place, and the place behind it."""
    if level > _DEEPEST:
        raise ValueError(f"it has more than {_DEEPEST} levels")
    place = _behind_space(text, place)
    if text.startswith(quote, place):
        begin = place + len(quote)
        end = text.find(quote, begin)
        if end < 0:
            raise ValueError("a string has no end")
        return text[begin:end], end + len(quote)
    if text.startswith('"', place):
        value, end = json.JSONDecoder().raw_decode(text, place)
        return value, end
    if text.startswith(("{", "["), place):
        return _bare_items(text, place, quote, level)
    end = match.start() if (match := _BARE_END.search(text, place)) else len(text)
    word = text[place:end].strip()
    if word in _JSON_NAMES:
        return _JSON_NAMES[word], end
    return (json.loads(word) if _NUMBER.fullmatch(word) else word), end


def _bare_items(text: str, place: int, quote: str, level: int) -> tuple[Any, int]:
    """Returns the object or list that begins at a place, and the place behind it."""
    closer = _CLOSERS[text[place]]
    values: dict[str, Any] = {}
    items: list[Any] = []
    place = _behind_space(text, place + 1)
    while not text.startswith(closer, place):
        if closer == "}":
            key, place = _bare_key(text, place, quote)
            values[key], place = _bare_value(text, place, quote, level + 1)
        else:
            item, place = _bare_value(text, place, quote, level + 1)
            items.append(item)
        place = _behind_space(text, place)
        if text.startswith(",", place):
            place = _behind_space(text, place + 1)
        elif not text.startswith(closer, place):
            raise ValueError("a value is followed by something else")
    return (values if closer == "}" else items), place + 1


def _bare_key(text: str, place: int, quote: str) -> tuple[str, int]:
    end = text.find(":", place)
    if text.startswith((quote, '"'), place):
        key, behind = _bare_value(text, place, quote, 0)
        end = _behind_space(text, behind)
    else:
        key = text[place:end].strip()
    if end < 0 or not text.startswith(":", end) or not key:
        raise ValueError("a key is followed by a colon")
    return key, end + 1


def _behind_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
