"""The types of arguments that a model writes as plain text: a string stays one, wherever its schema says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.huggingface.worker.parsing.argument_types import ArgumentTypes

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NOTHING = {"type": "null"}
LOOKS = ["5551234", "-1.5e3", "0", "true", "false", "1", "9007199254740993"]


def read(schema: Any, text: str, root: dict[str, Any] | None = None) -> Any:
    return json.loads(ArgumentTypes({"type": "object", "properties": {"x": schema}, **(root or {})}).as_json("x", text))


STRINGS: dict[str, Any] = {
    "type": TEXT,
    "list of types": {"type": ["string", "null"]},
    "list with a number": {"type": ["integer", "string"]},
    "pydantic's optional": {"anyOf": [TEXT, NOTHING], "default": None, "title": "X"},
    "union": {"anyOf": [WHOLE, TEXT]},
    "oneOf": {"oneOf": [{"type": "string", "format": "date"}, NOTHING]},
    "allOf": {"allOf": [TEXT, {"minLength": 1}]},
    "nested": {"anyOf": [{"oneOf": [{"allOf": [TEXT]}]}, NOTHING]},
    "reference": {"$ref": "#/$defs/Word"},
    "reference in an alternative": {"anyOf": [{"$ref": "#/$defs/Word"}, NOTHING]},
    "chain of references": {"$ref": "#/$defs/Other"},
    "reference with escapes": {"$ref": "#/$defs/a~1b%20c"},
    "reference to an anchor": {"$ref": "#word"},
    "old reference": {"$ref": "#/definitions/Word"},
    "circle of alternatives": {"$ref": "#/$defs/Circle"},
    "keyword of strings": {"pattern": "^[0-9]+$"},
    "listed": {"enum": LOOKS},
    "listed beside numbers": {"enum": [*LOOKS, 1, True, 5551234]},
    "nullable": {"type": "string", "nullable": True},
    "condition": {"if": {"const": 1}, "then": TEXT, "else": TEXT},
}
DEFINITIONS = {
    "$defs": {
        "Word": {"$anchor": "word", "type": "string", "description": "A word."},
        "Other": {"$ref": "#/$defs/Word"},
        "a/b c": TEXT,
        "Circle": {"anyOf": [TEXT, {"$ref": "#/$defs/Circle"}]},
    },
    "definitions": {"Word": TEXT},
}


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize("text", LOOKS)
def test_a_string_never_becomes_a_number_or_a_truth_value(name: str, text: str) -> None:
    assert read(STRINGS[name], text, DEFINITIONS) == text


@pytest.mark.parametrize("text", LOOKS)
def test_each_listed_word_is_a_string(text: str) -> None:
    assert read({"const": text}, text) == text


@pytest.mark.parametrize(
    "root",
    [
        {"properties": {}, "additionalProperties": TEXT},
        {"properties": {}, "patternProperties": {"^x": TEXT}},
        {"properties": {}, "allOf": [{"properties": {"x": TEXT}}]},
        {"properties": {}, "anyOf": [{"properties": {"x": {"anyOf": [TEXT, NOTHING]}}}]},
        {"properties": {}, "$ref": "#/$defs/All", "$defs": {"All": {"properties": {"x": TEXT}}}},
        {"properties": {}},
    ],
)
def test_an_argument_is_described_wherever_the_schema_says_so(root: dict[str, Any]) -> None:
    assert read(TEXT, "1", root) == "1"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (WHOLE, "12", 12),
        (WHOLE, "9007199254740993", 9007199254740993),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "True", True),
        ({"type": ["integer", "null"]}, "None", None),
        ({"anyOf": [WHOLE, NOTHING]}, "12", 12),
        ({"anyOf": [WHOLE, NOTHING]}, "null", None),
        ({"anyOf": [TEXT, NOTHING]}, "null", None),
        ({"anyOf": [TEXT, {"type": "array", "items": TEXT}]}, '["a", "1"]', ["a", "1"]),
        ({"anyOf": [TEXT, NOTHING]}, '["a"]', '["a"]'),
        ({"allOf": [{"type": ["integer", "string"]}, WHOLE]}, "5", 5),
        ({"enum": [1, 2, "auto"]}, "1", 1),
        ({"enum": [1, 2, "auto"]}, "auto", "auto"),
        ({"const": 7}, "7", 7),
        ({"$ref": "#/$defs/Count"}, "3", 3),
        ({"type": "object"}, '{"a": {"b": "1"}}', {"a": {"b": "1"}}),
        ({}, "5", 5),
        ({"$ref": "https://example.org/absent"}, "5", 5),
        (True, "[1]", [1]),
        (WHOLE, "twelve", "twelve"),
        ({"type": "number"}, "NaN", "NaN"),
        (TEXT, "True", "True"),
    ],
)
def test_other_types_are_read_as_json(schema: Any, text: str, value: object) -> None:
    result = read(schema, text, {"$defs": {"Count": WHOLE}})
    assert result == value
    assert type(result) is type(value)


WRAPPERS = [
    lambda schema: {"anyOf": [schema, NOTHING]},
    lambda schema: {"oneOf": [WHOLE, schema]},
    lambda schema: {"allOf": [schema]},
    lambda schema: {"allOf": [{"description": "x"}, schema], "title": "X"},
    lambda schema: {"anyOf": [{"type": "array"}, {"anyOf": [schema]}]},
]


@settings(max_examples=100, deadline=None)
@given(wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=8), text=st.sampled_from(LOOKS))
def test_no_nesting_hides_that_it_is_a_string(wrappers: list[Any], text: str) -> None:
    schema: Any = TEXT
    for wrap in wrappers:
        schema = wrap(schema)
    assert read(schema, text) == text


def test_references_that_unfold_without_end_take_no_time() -> None:
    definitions = {f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(40)}
    assert read({"$ref": "#/$defs/d0"}, "1", {"$defs": {**definitions, "d40": TEXT}}) == "1"
    deep: Any = TEXT
    for _ in range(900):
        deep = {"anyOf": [deep]}
    assert read(deep, "1") == "1"


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "array", "items": TEXT}, "['a', \"b's\"]", ["a", "b's"]),
        ({"anyOf": [{"type": "array"}, NOTHING]}, "['a', None]", ["a", None]),
        ({"type": "object"}, "{'a': True, 'b': (1, 2.5)}", {"a": True, "b": [1, 2.5]}),
        ({"type": "boolean"}, "TRUE", True),
        (NOTHING, "none", None),
        (WHOLE, "+5", 5),
        ({"type": "number"}, ".5", 0.5),
        ({"type": "array"}, "['a'", "['a'"),
        ({"type": "array"}, "[open('a')]", "[open('a')]"),
        ({"type": "number"}, "1e999 + 1j", "1e999 + 1j"),
        ({"type": "array"}, "[" * 20_000, "[" * 20_000),
    ],
)
def test_a_value_that_is_no_string_may_be_written_in_pythons_syntax(schema: Any, text: str, value: Any) -> None:
    assert read(schema, text) == value


@pytest.mark.parametrize("text", ["['a']", "{'a': 1}", "TRUE", ".5"])
def test_a_string_in_pythons_syntax_stays_one(text: str) -> None:
    assert read({"anyOf": [TEXT, {"type": "array"}, {"type": "number"}]}, text) == text


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("str", "007", "007"),
        ("String", "true", "true"),
        ("STRING", "5", "5"),
        ("int", "5", 5),
        ("Integer", "5", 5),
        ("float", "5.5", 5.5),
        ("bool", "True", True),
        ("list", "['a']", ["a"]),
        ("dict", "{'a': 1}", {"a": 1}),
    ],
)
def test_types_may_have_the_names_of_other_languages(name: str, text: str, value: Any) -> None:
    assert read({"type": name}, text) == value
