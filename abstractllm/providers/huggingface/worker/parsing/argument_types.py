"""The types of a tool's arguments, for models that write arguments as plain text."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

__all__ = ["ArgumentTypes"]

_STRING = "string"
_WORD = "word"
"""The type, beside those of JSON schemas, of a string that is one of the listed values."""
_JSON_TYPES = frozenset({"null", "boolean", "integer", "number", "array", "object"})
_STRING_KEYWORDS = ("pattern", "format", "minLength", "maxLength", "contentEncoding", "contentMediaType")
"""Keywords that say something of strings alone; a schema with one of them and no type describes a string."""
_ALTERNATIVES = ("anyOf", "oneOf")
_BRANCHES = ("allOf", "anyOf", "oneOf")
_MOST_SCHEMAS = 10_000
"""Schemas that are looked at for one tool; the references of a small one may unfold to millions."""
_MOST_LEVELS = 64
_OTHER_NAMES = {
    "str": _STRING,
    "text": _STRING,
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "none": "null",
}
"""The names of other languages for the types of JSON, which tools are described by although no standard has them."""
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "none": "null"}
"""Constants in small letters; templates that print Python's values write them with a capital, and so do models."""
_LONGEST_EXPRESSION = 10_000
"""Characters of a value in Python's syntax."""


@dataclass(frozen=True, slots=True)
class _Allowed:
    """The values that a schema allows, as far as that decides about reading a text."""

    types: frozenset[str] | None
    """The names of the types; None for any."""
    words: frozenset[str] = frozenset()
    """Strings that the schema lists as allowed values."""


_ANYTHING = _Allowed(None)
_TEXT = _Allowed(frozenset({_STRING}))


class ArgumentTypes:
    """The types of one tool's arguments.

    References, alternatives and combinations are followed. A text is read as a number or a truth value only where the
    argument may not be a string.

    Args:
        schema: The schema of the tool's arguments.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._seen = 0
        self._known: dict[str, _Allowed] = {}

    def as_json(self, key: str, text: str) -> str:
        """Returns an argument that is written as plain text as JSON, of a type that its schema allows.

        Args:
            key: The argument's name.
            text: Its text.
        """
        if key not in self._known:
            self._seen = 0
            self._known[key] = self._argument(key)
        allowed = self._known[key]
        types, word = allowed.types, text.strip()
        if types is not None and _STRING not in types:
            word = _json_text(word)
        if text not in allowed.words and types != _TEXT.types:
            # A listed string is told from other values by the list, any other one by nothing.
            try:
                value = _parse(word)
            except (ValueError, RecursionError):
                pass
            else:
                if not isinstance(value, str) and _may_be(_type_of(value), types):
                    return word
        return json.dumps(text, ensure_ascii=False)

    def _argument(self, key: str) -> _Allowed:
        """Returns what an argument may be; one that the schema does not describe is a string."""
        allowed: _Allowed | None = None
        for schema in self._described(self._root, key, 0):
            more = self._allowed(schema, 0, ())
            allowed = more if allowed is None else _either(allowed, more)
        return allowed or _TEXT

    def _described(self, schema: Any, key: str, level: int) -> Iterator[Any]:
        """Yields the schemas that describe an argument, wherever the tool's schema has them."""
        if not isinstance(schema, Mapping) or not self._goes_on(level):
            return
        properties, other = schema.get("properties"), schema.get("additionalProperties")
        if isinstance(properties, Mapping) and key in properties:
            yield properties[key]
        elif isinstance(patterns := schema.get("patternProperties"), Mapping) and patterns:
            yield {"anyOf": list(patterns.values())}
        elif isinstance(other, Mapping):
            yield other
        if isinstance(reference := schema.get("$ref"), str):
            yield from self._described(self._target(reference), key, level + 1)
        for keyword in _BRANCHES:
            for branch in _listed(schema.get(keyword)):
                yield from self._described(branch, key, level + 1)
        for keyword in ("if", "then", "else"):
            yield from self._described(schema.get(keyword), key, level + 1)

    def _allowed(self, schema: Any, level: int, references: tuple[str, ...]) -> _Allowed:
        """Returns what a schema allows.

        Args:
            schema: The schema.
            level: The number of schemas around it.
            references: The references that led to it.
        """
        if not isinstance(schema, Mapping):
            return _ANYTHING
        if not self._goes_on(level):
            return _TEXT
        allowed = _typed(schema)
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str) and reference not in references:
            target = self._allowed(self._target(reference), level + 1, (*references, reference))
            allowed = _both(allowed, target)
        for branch in _listed(schema.get("allOf")):
            allowed = _both(allowed, self._allowed(branch, level + 1, references))
        for keyword in _ALTERNATIVES:
            if branches := _listed(schema.get(keyword)):
                alternatives = self._allowed(branches[0], level + 1, references)
                for branch in branches[1:]:
                    alternatives = _either(alternatives, self._allowed(branch, level + 1, references))
                allowed = _both(allowed, alternatives)
        for keyword in ("then", "else"):
            if keyword in schema and allowed.types is None:
                allowed = self._allowed(schema[keyword], level + 1, references)
        if schema.get("nullable") is True and allowed.types is not None:
            allowed = _Allowed(allowed.types | {"null"}, allowed.words)
        return allowed

    def _goes_on(self, level: int) -> bool:
        self._seen += 1
        return level <= _MOST_LEVELS and self._seen <= _MOST_SCHEMAS

    def _target(self, reference: str) -> Any:
        """Returns the schema that a reference within the tool's schema names; None where there is none."""
        if not reference.startswith("#"):
            return _with_id(self._root, reference)
        if reference == "#":
            return self._root
        if not reference.startswith("#/"):
            return _with_anchor(self._root, reference[1:])
        schema: Any = self._root
        for part in unquote(reference[2:]).split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(schema, Mapping):
                schema = schema.get(part)
            elif isinstance(schema, list) and part.isdecimal() and int(part) < len(schema):
                schema = schema[int(part)]
            else:
                return None
        return schema


def _typed(schema: Mapping[str, Any]) -> _Allowed:
    """Returns what a schema's own type, constant and list of values allow."""
    types: frozenset[str] | None = None
    if "type" in schema:
        types = frozenset(_listed_types(schema["type"])) or None
    values = [schema["const"]] if "const" in schema else _listed(schema.get("enum"))
    if values:
        words = frozenset(value for value in values if isinstance(value, str))
        named = frozenset(_WORD if isinstance(value, str) else _type_of(value) for value in values)
        return _both(_Allowed(types), _Allowed(named, words))
    if types is None and any(keyword in schema for keyword in _STRING_KEYWORDS):
        return _TEXT
    return _Allowed(types)


def _both(first: _Allowed, second: _Allowed) -> _Allowed:
    """Returns what two schemas allow that both must hold; where they exclude each other, what either allows."""
    words = first.words | second.words
    if first.types is None or second.types is None:
        return _Allowed(second.types if first.types is None else first.types, words)
    common = frozenset(
        one for one in first.types | second.types if _includes(first.types, one) and _includes(second.types, one)
    )
    return _Allowed(common or first.types | second.types, words)


def _either(first: _Allowed, second: _Allowed) -> _Allowed:
    """Returns what two schemas allow of which one must hold; an unknown one adds nothing to a known one."""
    words = first.words | second.words
    if first.types is None or second.types is None:
        return _Allowed(second.types if first.types is None else first.types, words)
    return _Allowed(first.types | second.types, words)


def _may_be(type: str, types: frozenset[str] | None) -> bool:
    """Tells whether a value of a type is allowed, where numbers are not confused with strings.

    Beside strings, only what is no number and no truth value is told from text by its form.
    """
    if types is None:
        return True
    if _STRING in types and type in ("boolean", "integer", "number"):
        return False
    return _includes(types, type) or (type == "number" and "integer" in types)


def _includes(types: frozenset[str], type: str) -> bool:
    """Tells whether a type is one of some types, or a part of one."""
    return type in types or (type == "integer" and "number" in types) or (type == _WORD and _STRING in types)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _listed_types(value: Any) -> list[str]:
    """Returns the known types among those of a schema, by the names that JSON has for them."""
    names = [one.lower() for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    types = [_OTHER_NAMES.get(name, name) for name in names]
    return [type for type in types if type == _STRING or type in _JSON_TYPES]


def _json_text(text: str) -> str:
    """Returns a value that is no string as JSON, where it is written in Python's syntax; else the text as it is."""
    if (constant := _CONSTANTS.get(text.lower())) is not None:
        return constant
    try:
        _parse(text)
    except (ValueError, RecursionError):
        pass
    else:
        return text
    if len(text) > _LONGEST_EXPRESSION:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return json.dumps(ast.literal_eval(text), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def _subschemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the objects of a JSON value, which takes no stack."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _with_anchor(root: Any, name: str) -> Any:
    anchors = ("$anchor", "$dynamicAnchor")
    return next((one for one in _subschemas(root) if any(one.get(anchor) == name for anchor in anchors)), None)


def _with_id(root: Any, name: str) -> Any:
    return next((one for one in _subschemas(root) if name in (one.get("$id"), one.get("id"))), None)


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _type_of(value: object) -> str:
    """Returns the name that JSON schemas have for the type of a value that is not a string."""
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
