"""Writing a JSON schema as a grammar, where it holds numbers that llguidance's own compiler of schemas would change.

The compiler reads numbers as those of 64 bits with a floating point. So the way from the root to each number with more
digits is written as rules; what lies beside the way is left to the compiler.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_numbers import (
    integer_pattern,
    is_exact,
    number_text,
)
from abstractllm.providers.huggingface.worker.structured.schema_preparation import PreparedSchema

__all__ = ["compiler_input", "json_rules"]

_KEY = r'"([^"\\\x00-\x1f\x7f]|\\["\\bfnrt])*"'
"""The keys that a model may choose, each in one way of writing."""
_LARGEST = 400_000
"""Characters of the grammar of a schema."""
_VALUES, _BOUNDS = ("const", "enum"), ("minimum", "maximum")


def compiler_input(prepared: PreparedSchema, style: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the kind and the text of a format that holds a whole answer to a schema.

    Raises:
        SchemaError: If answers cannot be held to it.
    """
    if not prepared.inexact:
        return "json_schema", json.dumps(prepared.schema | {"x-guidance": prepared.options})
    start, rules = json_rules(prepared, style)
    return "grammar", "\n".join([f"start: {start}", *rules])


def json_rules(prepared: PreparedSchema, style: Mapping[str, Any], prefix: str = "json") -> tuple[str, list[str]]:
    """Returns the part of a grammar that stands for JSON with a schema, and the rules that it needs.

    Args:
        prepared: The schema.
        style: llguidance's options for white space.
        prefix: The beginning of the names of the rules.

    Raises:
        SchemaError: If answers cannot be held to it.
    """
    options = {**style, **prepared.options}
    if not prepared.inexact:
        return f"%json {json.dumps(prepared.schema | {'x-guidance': options})}", []
    return _Rules(prepared, options, prefix).run()


class _Rules:
    def __init__(self, prepared: PreparedSchema, options: Mapping[str, Any], prefix: str) -> None:
        self._prepared = prepared
        self._options = options
        self._prefix = prefix
        self._rules: list[str] = []
        self._definitions: Mapping[str, Any] = prepared.schema.get("$defs", {})
        self._needs_rules = self._definitions_that_need_rules()
        self._named: dict[str, str] = {}

    def run(self) -> tuple[str, list[str]]:
        terminals = self._prefix.upper()
        self._comma, self._colon, self._key = f"{terminals}_COMMA", f"{terminals}_COLON", f"{terminals}_KEY"
        self._rules.append(f"{self._comma}: {_pattern(self._options['item_separator'])}")
        self._rules.append(f"{self._colon}: {_pattern(self._options['key_separator'])}")
        root = {key: value for key, value in self._prepared.schema.items() if key not in ("$defs", "$schema")}
        start = self._value(root)
        if len(start) + sum(map(len, self._rules)) > _LARGEST:
            raise self._prepared.inexact[0]
        return start, self._rules

    def _definitions_that_need_rules(self) -> set[str]:
        names: set[str] = set()
        while more := {
            name for name, schema in self._definitions.items() if name not in names and _needs_rules(schema, names)
        }:
            names |= more
        return names

    def _rule(self, body: str) -> str:
        name = f"{self._prefix}_{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def _value(self, schema: Any) -> str:
        """Returns the part of the grammar that stands for a value with a schema."""
        if not _needs_rules(schema, self._needs_rules):
            shared = {key: self._prepared.schema[key] for key in ("$schema",) if key in self._prepared.schema}
            return f"%json {json.dumps(self._alone(schema) | shared | {'x-guidance': dict(self._options)})}"
        match sorted(schema):
            case ["$ref"]:
                return self._definition(schema["$ref"].rpartition("/")[2])
            case ["anyOf"]:
                return self._choice([self._value(part) for part in schema["anyOf"] if part is not False])
            case ["allOf"] if len(schema["allOf"]) == 1:
                return self._value(schema["allOf"][0])
        types = schema.get("type", ())
        types = (types,) if isinstance(types, str) else tuple(types)
        keywords = set(schema) - {"type"}
        if len(keywords & {*_VALUES}) == 1 and len(keywords) == 1:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            return self._choice([self._literal(value) for value in values if not types or _is_of(value, types)])
        if set(types) <= {"integer", "null"} and "integer" in types and keywords <= {*_BOUNDS}:
            least, most = schema.get("minimum"), schema.get("maximum")
            whole = (None if least is None else math.ceil(least), None if most is None else math.floor(most))
            terminal = self._terminal(_pattern(integer_pattern(*whole)))
            return self._choice([terminal, *(['"null"'] if "null" in types else [])])
        if types == ("object",) and keywords <= {"properties", "required", "additionalProperties"}:
            return self._object(schema)
        if types == ("array",) and keywords <= {"items", "minItems", "maxItems"}:
            return self._array(schema)
        raise self._prepared.inexact[0]

    def _alone(self, schema: Any) -> dict[str, Any]:
        """Returns a schema with the definitions that it needs."""
        alone: dict[str, Any] = schema if isinstance(schema, dict) else {}
        names: list[str] = []
        waiting: list[Any] = [alone]
        while waiting:
            for name in _references(waiting.pop()):
                if name in self._definitions and name not in names:
                    names.append(name)
                    waiting.append(self._definitions[name])
        return alone | ({"$defs": {name: self._definitions[name] for name in names}} if names else {})

    def _definition(self, name: str) -> str:
        if name not in self._named:
            self._named[name] = f"{self._prefix}_definition_{name}"
            self._rules.append(f"{self._named[name]}: {self._value(self._definitions[name])}")
        return self._named[name]

    def _terminal(self, body: str) -> str:
        name = f"{self._prefix.upper()}_{len(self._rules)}"
        self._rules.append(f"{name}: {body}")
        return name

    def _choice(self, parts: list[str]) -> str:
        if not parts:
            raise SchemaError((), "it is unsatisfiable: a type allows none of the values beside it")
        return f"({' | '.join(parts)})"

    def _literal(self, value: Any) -> str:
        match value:
            case list():
                items = f" {self._comma} ".join(map(self._literal, value))
                return f'("[" {items} "]")'
            case dict():
                items = f" {self._comma} ".join(
                    f"{_quoted(json.dumps(key, ensure_ascii=False))} {self._colon} {self._literal(item)}"
                    for key, item in value.items()
                )
                return f'("{{" {items} "}}")'
            case bool() | None | str():
                return _quoted(json.dumps(value, ensure_ascii=False))
            case _:
                return _quoted(number_text(value))

    def _object(self, schema: dict[str, Any]) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        rest = schema.get("additionalProperties", True)
        names = [*properties, *(name for name in required if name not in properties)]
        if any(properties.get(name, rest) is False for name in names):
            raise self._prepared.inexact[0]
        tail_after, tail_alone = "", ""
        if rest is not False:
            taken = "|".join(re.escape(json.dumps(name, ensure_ascii=False)) for name in names)
            key = self._terminal(_pattern(_KEY) + (f" & ~{_pattern(f'({taken})')}" if names else ""))
            item = self._rule(f"{key} {self._colon} {self._value(rest)}")
            tail_after, tail_alone = f"({self._comma} {item})*", f"({item} ({self._comma} {item})*)?"
        for name in reversed(names):
            key = _quoted(json.dumps(name, ensure_ascii=False))
            item = self._rule(f"{key} {self._colon} {self._value(properties.get(name, rest))}")
            if name in required:
                tail_alone, tail_after = f"{item} {tail_after}", f"{self._comma} {item} {tail_after}"
            else:
                after = self._rule(tail_after) if tail_after else ""
                alone = self._rule(tail_alone) if tail_alone else ""
                tail_alone = f"({item} {after} | {alone})" if alone else f"({item} {after})?"
                tail_after = f"({self._comma} {item})? {after}"
        return f'"{{" {tail_alone} "}}"'

    def _array(self, schema: dict[str, Any]) -> str:
        item = self._rule(self._value(schema["items"]))
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and least > most:
            raise SchemaError((), f"it is unsatisfiable: minItems ({least}) is greater than maxItems ({most})")
        if most == 0:
            return '"[" "]"'
        more = "" if most == 1 else f"({self._comma} {item}){{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'


def _needs_rules(schema: Any, names: set[str]) -> bool:
    """Returns True if a schema holds a number that the compiler would change, or refers to one that does."""
    match schema:
        case dict():
            if "$ref" in schema and isinstance(schema["$ref"], str) and schema["$ref"].rpartition("/")[2] in names:
                return True
            return any(_needs_rules(value, names) for key, value in schema.items() if key != "$defs")
        case list():
            return any(_needs_rules(item, names) for item in schema)
        case bool():
            return False
        case int() | float():
            return not is_exact(schema)
    return False


def _references(schema: Any) -> list[str]:
    match schema:
        case dict():
            names = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
            return names + [name for value in schema.values() for name in _references(value)]
        case list():
            return [name for item in schema for name in _references(item)]
    return []


def _is_of(value: Any, types: tuple[str, ...]) -> bool:
    match value:
        case bool():
            return "boolean" in types
        case None:
            return "null" in types
        case int() | float():
            number = Decimal(number_text(value))
            return "number" in types or ("integer" in types and number == number.to_integral_value())
        case str():
            return "string" in types
        case list():
            return "array" in types
    return "object" in types


def _pattern(pattern: str) -> str:
    return f"/{pattern.replace('/', chr(92) + '/')}/"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
