"""Checking a JSON schema, and writing it in the words that llguidance holds answers to.

What is left of a schema means the same to llguidance as to a validator: references are resolved, annotations left out,
keywords without effect left out, and what answers cannot be held to is refused with its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_numbers import (
    exact,
    exact_bound,
    exact_step,
    integer_bound,
)
from abstractllm.providers.huggingface.worker.structured.schema_references import Pointer, References, can_be_finite

__all__ = ["ESCAPES", "FORMATS", "PreparedSchema", "prepare_schema"]

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
"""Formats that answers are held to; all others are annotations, as JSON Schema has them."""
ESCAPES = {"json_allow_general_unicode_escapes": True}
"""Options for strings: a model may write any character as an escape."""
_NO_ESCAPES = {"json_allowed_escapes": 'nrbtf\\\\"'}
"""Options for strings where a key could hide behind an escape from the rule for keys of its name."""
_MAX_NESTING = 124
"""Levels of nesting, of the 128 that llguidance reads: it wraps a schema in four."""
_MAX_DEFINITIONS = 1000
_MAX_COUNT = 2**31
"""Characters, items or properties: beyond this a bound is one that no answer can reach."""
_MAX_STEPS_PRODUCT = 2**32
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_DRAFT = re.compile(r"https?://json-schema\.org/(draft/20(19-09|20-12)|draft-0[467])/schema#?")

_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties")
_SINGLE = ("additionalProperties", "additionalItems", "items")
_BOUNDS = {"minimum": 0, "maximum": 0, "exclusiveMinimum": 1, "exclusiveMaximum": -1}
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")

_ARRAY, _OBJECT = ("array",), ("object",)
_UNSUPPORTED: dict[str, tuple[tuple[str, ...], Callable[[Any, dict[str, Any]], bool]]] = {
    "not": (_TYPES, lambda value, schema: value is False),
    "if": (_TYPES, lambda value, schema: "then" not in schema and "else" not in schema),
    "then": (_TYPES, lambda value, schema: "if" not in schema),
    "else": (_TYPES, lambda value, schema: "if" not in schema),
    "$dynamicRef": (_TYPES, lambda value, schema: False),
    "$recursiveRef": (_TYPES, lambda value, schema: False),
    "uniqueItems": (_ARRAY, lambda value, schema: value is False or schema.get("maxItems") in (0, 1)),
    "contains": (_ARRAY, lambda value, schema: schema.get("minContains") == 0 and "maxContains" not in schema),
    "minContains": (_ARRAY, lambda value, schema: True),
    "maxContains": (_ARRAY, lambda value, schema: "contains" not in schema),
    "unevaluatedItems": (_ARRAY, lambda value, schema: value in (True, {})),
    "unevaluatedProperties": (_OBJECT, lambda value, schema: value in (True, {})),
    "propertyNames": (_OBJECT, lambda value, schema: value in (True, {}, {"type": "string"})),
    "dependentRequired": (_OBJECT, lambda value, schema: not any(_items(value))),
    "dependentSchemas": (_OBJECT, lambda value, schema: all(part in (True, {}) for part in _items(value))),
    "dependencies": (_OBJECT, lambda value, schema: all(part in (True, {}, []) for part in _items(value))),
}
"""Keywords that answers cannot be held to: the types of the values that they are about, and a test for those that have
no effect where they stand."""


@dataclass(frozen=True)
class PreparedSchema:
    """A schema as llguidance takes it."""

    schema: dict[str, Any]
    options: dict[str, Any]
    """llguidance's options for it."""
    places: dict[str, Pointer]
    """The places of its definitions in the schema as it was, by their names."""
    inexact: tuple[SchemaError, ...] = ()
    """The errors of numbers that llguidance would change: these must be written as rules of a grammar."""


def prepare_schema(document: dict[str, Any], *, is_lenient: bool = False) -> PreparedSchema:
    """Returns a schema as llguidance takes it.

    Args:
        document: The schema, as `parse_schema` returns it.
        is_lenient: Leave out what answers cannot be held to.

    Raises:
        SchemaError: If answers cannot be held to it, or it is malformed.
    """
    _check_nesting(document)
    return _Preparation(document, is_lenient).run()


class _Preparation:
    def __init__(self, document: Any, is_lenient: bool) -> None:
        self._document = document
        self._is_lenient = is_lenient
        self._references = References(document)
        self._names: dict[Pointer, str] = {}
        """The new references, by the places that they name."""
        self._targets: list[tuple[Pointer, Any]] = []
        self._steps: list[tuple[Pointer, Decimal]] = []
        self._inexact: list[SchemaError] = []
        self._merges = False
        self._may_hide_keys = False

    def run(self) -> PreparedSchema:
        root = self._schema(self._document, ())
        definitions: dict[str, Any] = {}
        while len(definitions) < len(self._targets):
            place, target = self._targets[len(definitions)]
            definitions[str(len(definitions))] = self._schema(target, place)
        self._check_steps()
        named = {f"#/$defs/{name}": schema for name, schema in definitions.items()}
        if not can_be_finite(root, named):
            raise SchemaError((), "it is unsatisfiable: each answer would contain another one, without an end")
        if definitions:
            root = root | {"$defs": definitions}
        places = {str(index): place for index, (place, _) in enumerate(self._targets)}
        options = _NO_ESCAPES if self._may_hide_keys else ESCAPES
        return PreparedSchema(root, options, places, tuple(self._inexact))

    def _schema(self, schema: Any, pointer: Pointer) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise SchemaError(pointer, f"a schema is an object, true or false, got {_shorten(schema)}")
        prepared: dict[str, Any] = {}
        for keyword, value in schema.items():
            place = (*pointer, keyword)
            if keyword in _UNSUPPORTED:
                self._check_support(keyword, value, schema, place)
            elif keyword in _LISTS and not (keyword == "prefixItems" and not isinstance(value, list)):
                prepared[keyword] = self._list(value, place)
            elif keyword in _MAPS:
                prepared[keyword] = self._map(keyword, value, place)
            elif keyword in _SINGLE:
                is_list = keyword == "items" and isinstance(value, list)
                prepared[keyword] = self._list(value, place) if is_list else self._schema(value, place)
            else:
                self._assertion(keyword, value, schema, prepared, pointer)
        self._note_merges(prepared)
        self._check_properties(prepared, pointer)
        return prepared

    def _list(self, value: Any, place: Pointer) -> list[Any]:
        _require(isinstance(value, list), place, "must be a list of schemas", value)
        return [self._schema(item, (*place, index)) for index, item in enumerate(value)]

    def _map(self, keyword: str, value: Any, place: Pointer) -> dict[str, Any]:
        _require(isinstance(value, dict), place, "must be an object of schemas", value)
        for name in value:
            _check_text(name, place)
        return {
            _pattern(name) if keyword == "patternProperties" else name: self._schema(item, (*place, name))
            for name, item in value.items()
        }

    def _assertion(
        self, keyword: str, value: Any, schema: dict[str, Any], prepared: dict[str, Any], pointer: Pointer
    ) -> None:
        """Takes a keyword without schemas over into the prepared schema; one that is no keyword is an annotation."""
        place = (*pointer, keyword)
        if keyword == "$schema":
            if not pointer and isinstance(value, str) and _DRAFT.fullmatch(value):
                prepared[keyword] = value
        elif keyword == "$ref":
            _require(isinstance(value, str), place, "must be a text", value)
            prepared[keyword] = self._reference(*self._references.resolve(value, pointer), place)
        elif keyword == "type":
            _require(_is_type(value), place, f"must be one or more of {', '.join(_TYPES)}", value)
            prepared[keyword] = value
        elif keyword == "enum":
            _require(isinstance(value, list), place, "must be a list", value)
            _require(bool(value), place, "is empty, which makes the schema unsatisfiable", value)
            prepared[keyword] = [self._repeated(item, (*place, index)) for index, item in enumerate(value)]
        elif keyword == "const":
            prepared[keyword] = self._repeated(value, place)
        elif keyword in _BOUNDS:
            self._bound(keyword, value, schema, prepared, place)
        elif keyword == "multipleOf":
            _require(_is_number(value), place, "must be a number", value)
            prepared[keyword], step = exact_step(value, place)
            self._steps.append((place, step))
        elif keyword in _COUNTS:
            _count(keyword, value, prepared, place)
        elif keyword == "required":
            is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
            _require(is_list, place, "must be a list of names", value)
            for name in value:
                _check_text(name, place)
            prepared[keyword] = list(dict.fromkeys(value))
        elif keyword == "pattern":
            _require(isinstance(value, str), place, "must be a text", value)
            _check_text(value, place)
            prepared[keyword] = _pattern(value)
        elif keyword == "format" and value in FORMATS:
            prepared[keyword] = value

    def _repeated(self, value: Any, place: Pointer) -> Any:
        """Returns a value that answers may have to repeat."""
        match value:
            case bool() | None:
                return value
            case int() | float():
                try:
                    return exact(value, place)
                except SchemaError as error:
                    self._inexact.append(error)
                    return value
            case str():
                _check_text(value, place)
                return value
            case list():
                return [self._repeated(item, (*place, index)) for index, item in enumerate(value)]
            case _:
                for name in value:
                    _check_text(name, place)
                return {name: self._repeated(item, (*place, name)) for name, item in value.items()}

    def _reference(self, target: Pointer, schema: Any, place: Pointer) -> str:
        if target not in self._names:
            self._names[target] = f"#/$defs/{len(self._targets)}"
            self._targets.append((target, schema))
            if len(self._targets) > _MAX_DEFINITIONS:
                raise SchemaError(
                    place, "it is too complex: too many references", limit=f"{_MAX_DEFINITIONS} definitions"
                )
        return self._names[target]

    def _bound(
        self, keyword: str, value: Any, schema: dict[str, Any], prepared: dict[str, Any], place: Pointer
    ) -> None:
        """Takes a bound over, as one that is a part of its range."""
        inclusive = keyword.removeprefix("exclusive").lower()
        if isinstance(value, bool) and inclusive != keyword:  # as in draft 4
            if not value or not _is_number(schema.get(inclusive)):
                return
            value = schema[inclusive]
        _require(_is_number(value), place, "must be a number", value)
        try:
            bound = exact_bound(value, place, _BOUNDS[keyword])
        except SchemaError as error:
            if schema.get("type") not in ("integer", ["integer"], ["integer", "null"], ["null", "integer"]):
                raise
            bound = integer_bound(value, place, _BOUNDS[keyword])
            self._inexact.append(error)
        choose = max if inclusive == "minimum" else min
        prepared[inclusive] = choose(bound, prepared.get(inclusive, bound))

    def _check_support(self, keyword: str, value: Any, schema: dict[str, Any], place: Pointer) -> None:
        about, has_no_effect = _UNSUPPORTED[keyword]
        types = schema.get("type", _TYPES)
        is_about = any(name in about for name in ([types] if isinstance(types, str) else types))
        if is_about and not has_no_effect(value, schema) and not self._is_lenient:
            raise SchemaError(place, f"local models cannot hold answers to the keyword {keyword}")

    def _note_merges(self, schema: dict[str, Any]) -> None:
        keywords = [keyword for keyword in schema if keyword not in ("$schema", "type")]
        self._merges |= "allOf" in schema or "patternProperties" in schema
        self._merges |= len(keywords) > 1 and any(keyword in schema for keyword in _IN_PLACE)

    def _check_properties(self, schema: dict[str, Any], pointer: Pointer) -> None:
        is_open = schema.get("additionalProperties", True) is not False
        names = [*schema.get("properties", ()), *schema.get("required", ())]
        if is_open and (names or schema.get("patternProperties")):
            self._may_hide_keys = True
        more = schema.get("minProperties", 0) - len(schema.get("required", ()))
        if more > 1 and (is_open or schema.get("patternProperties")) and not self._is_lenient:
            raise SchemaError(
                (*pointer, "minProperties"),
                "local models cannot hold answers to it where it asks for two or more properties beyond the required "
                "ones: a name might come twice",
            )

    def _check_steps(self) -> None:
        """Checks that llguidance can merge the steps: it multiplies their digits, with 32 bits for the result."""
        if not self._merges or len(self._steps) < 2:
            return
        places = max(-step.normalize().as_tuple().exponent for _, step in self._steps)  # type: ignore[operator]
        product = 1
        for place, step in self._steps:
            product *= int(step.scaleb(max(places, 0)))
            if product >= _MAX_STEPS_PRODUCT:
                raise SchemaError(place, "local models cannot hold answers to this and the schema's other multipleOf")


def _check_nesting(document: Any) -> None:
    level, nodes = 0, [document]
    while nodes:
        level += 1
        if level > _MAX_NESTING:
            raise SchemaError((), "it is too complex: nested too deeply", limit="128 levels of nesting")
        nodes = [
            item
            for node in nodes
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list))
        ]


def _count(keyword: str, value: Any, prepared: dict[str, Any], place: Pointer) -> None:
    is_count = _is_number(value) and value >= 0 and value == value // 1
    _require(is_count, place, "must be an integer of 0 or more", value)
    if value < _MAX_COUNT:
        prepared[keyword] = int(value)
    elif keyword.startswith("min"):
        raise SchemaError(place, f"no answer is that long, got {_shorten(value)}", limit=f"less than {_MAX_COUNT}")


def _pattern(pattern: str) -> str:
    r"""Returns a JavaScript expression in the syntax of Rust.

    In a class of characters, `[`, `&&` and `~~` mean more in Rust.
    """
    parts, in_class, index = [], False, 0
    while index < len(pattern):
        piece = pattern[index : index + 2] if pattern[index] == "\\" else pattern[index]
        index += len(piece)
        if in_class and piece in "[&~":
            piece = "\\" + piece
        elif piece == "[":
            in_class = True
        elif piece == "]":
            in_class = False
        parts.append(piece)
    return "".join(parts)


def _check_text(text: str, place: Pointer) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SchemaError(place, "it holds a lone surrogate, which is not valid Unicode") from None


def _require(holds: bool, place: Pointer, rule: str, value: Any) -> None:
    if not holds:
        raise SchemaError(place, f"{rule}, got {_shorten(value)}")


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name in _TYPES for name in names)


def _shorten(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
