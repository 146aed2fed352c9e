"""A schema goes in, and answers that it allows come out, with each digit; the rest is refused with its place."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_numbers import integer_pattern
from abstractllm.providers.huggingface.worker.structured.schema_preparation import FORMATS, prepare_schema
from tests.unit.schema_walker import accepts, answers, compile_schema, texts

INTEGER = {"type": "integer"}
BIG = 2**53 + 1
CLOSED = {"type": "object", "additionalProperties": False}
ODD_NAMES = ('qu"ote', "é", "\n", "", "\x01", "a/b", "~", "\\", "\u2028", "$ref", "enum", "const", "\x7f", "😀", "%24")

TAKEN: list[dict[str, Any]] = [
    {},
    {"const": None},
    {"const": {"b": 1, "a": [None, 1.5, {}]}},
    {"const": "\x01\x7f\u2028"},
    {"enum": [1, "a", None, True, 1.5, [1, {"b": 2}], {"x": []}]},
    {"enum": [1, 1.0]},
    {"type": "string", "enum": ["a", 5, None]},
    {"type": "boolean", "enum": [True, "x"]},
    INTEGER | {"enum": [2.0, 3]},
    INTEGER | {"minimum": 0.5, "maximum": 1.5},
    INTEGER | {"exclusiveMinimum": 1, "exclusiveMaximum": 3},
    INTEGER | {"minimum": 2**53, "maximum": 2**53},
    INTEGER | {"minimum": 2**53 - 2, "exclusiveMaximum": 2**53},
    INTEGER | {"exclusiveMinimum": -(2**53), "maximum": -(2**53) + 2},
    INTEGER | {"multipleOf": 1.5},
    INTEGER | {"multipleOf": 7, "minimum": -20, "maximum": 20},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1.001},
    {"type": "number", "minimum": -1.5, "exclusiveMaximum": -1},
    {"type": "number", "minimum": -3, "maximum": 3, "multipleOf": 0.25},
    {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True, "maximum": 3},
    {"allOf": [INTEGER | {"multipleOf": 4}, {"multipleOf": 6}]},
    {"type": "string", "minLength": 2.0, "maxLength": 2},
    {"type": "string", "maxLength": 2**60},
    {"type": "string", "pattern": "^[a&&b]$"},
    {"type": "string", "pattern": "^[[~~]$"},
    {"type": "string", "pattern": "^(?:😀|é){2}$"},
    {"type": "string", "pattern": "^\\d{3}-\\w+$", "maxLength": 6},
    {"type": "string", "pattern": "a/b", "maxLength": 5},
    {"type": "string", "format": "date", "pattern": "^2024"},
    {"type": ["string", "integer"], "format": "int64"},
    {"type": "array", "prefixItems": [INTEGER, {"type": "string"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [INTEGER], "items": {"type": "null"}, "minItems": 3, "maxItems": 4},
    {"type": "array", "items": INTEGER, "maxItems": 2**40},
    {"type": "array", "items": INTEGER, "uniqueItems": True, "maxItems": 1},
    {"type": "array", "items": INTEGER, "uniqueItems": False},
    CLOSED | {"properties": dict.fromkeys(ODD_NAMES, INTEGER), "required": [*ODD_NAMES]},
    {"type": "object", "properties": {"a": INTEGER, "ab": INTEGER}, "additionalProperties": {"type": "string"}},
    {"type": "object", "properties": {"a": INTEGER}, "required": ["a", "z", "a"]},
    {"type": "object", "required": ["x"], "additionalProperties": INTEGER},
    {"type": "object", "properties": {"a": False}},
    CLOSED | {"properties": {"a": True}, "required": ["a"]},
    CLOSED | {"patternProperties": {"^a": INTEGER}},
    {"type": "object", "patternProperties": {"^a": INTEGER}, "additionalProperties": {"type": "string"}},
    CLOSED
    | {
        "properties": {"ax": INTEGER | {"minimum": 5}},
        "patternProperties": {"^a": INTEGER | {"maximum": 7}},
        "required": ["ax"],
    },
    {"type": "object", "additionalProperties": INTEGER, "minProperties": 1},
    CLOSED | {"properties": {"a": INTEGER, "b": INTEGER}, "minProperties": 1},
    {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]} | CLOSED | {"properties": {"a": INTEGER, "b": INTEGER}},
    {"anyOf": [{"type": "string", "minLength": 3, "maxLength": 1}, INTEGER]},
    {"oneOf": [{"type": "string"}, INTEGER]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
    {"$defs": {"a": {"$anchor": "here"} | INTEGER}, "$ref": "#here"},
    {"$id": "http://x/y.json", "$defs": {"a": INTEGER}, "$ref": "y.json#/$defs/a"},
    {"$defs": {"s": {"$id": "http://z/s", "$defs": {"t": INTEGER}, "$ref": "#/$defs/t"}}, "$ref": "http://z/s"},
    {"components": {"schemas": {"a~b/c": INTEGER}}, "$ref": "#/components/schemas/a~0b~1c"},
    CLOSED | {"properties": {"a b%": INTEGER, "x": {"$ref": "#/properties/a%20b%25"}}},
    CLOSED | {"properties": {"default": INTEGER, "x": {"$ref": "#/properties/default"}}, "required": ["default", "x"]},
    CLOSED | {"properties": {"a": {"$ref": "#"}}},
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
    {
        "$defs": {
            "node": CLOSED
            | {
                "properties": {"v": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["v", "next"],
            }
        },
        "$ref": "#/$defs/node",
    },
    {"enum": [BIG, -(2**63), "a", None, [BIG, {"b": BIG}]]},
    {"type": ["integer", "null"], "enum": [BIG, "a", None]},
    INTEGER | {"minimum": BIG, "maximum": BIG},
    INTEGER | {"minimum": -(2**63), "maximum": 2**63 - 1},
    INTEGER | {"minimum": 0, "maximum": 2**64 - 1},
    INTEGER | {"minimum": 0.5, "maximum": 2**63},
    INTEGER | {"exclusiveMinimum": 2**60, "exclusiveMaximum": 2**60 + 2},
    {"type": ["integer", "null"], "minimum": BIG},
    {"anyOf": [INTEGER | {"minimum": BIG}, {"type": "null"}, {"type": "object"}, False]},
    {"type": "array", "items": {"enum": [BIG, BIG + 1]}},
    {"type": "array", "items": {"const": BIG}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"const": BIG}, "maxItems": 1},
    {"type": "object", "properties": {"a": INTEGER, "id": {"const": BIG}, "b": {"type": "string"}}, "required": ["b"]},
    {"type": "object", "properties": {'q"\n': {"const": BIG}}, "required": ["z"], "additionalProperties": INTEGER},
    CLOSED | {"properties": {"a": {"const": BIG}, "b": {"const": BIG}}},
    CLOSED | {"properties": {"\x7f/a": {"const": BIG}}, "required": ["\x7f/a"]},
    {
        "$defs": {
            "id": INTEGER | {"minimum": 0, "maximum": 2**64 - 1},
            "text": {"type": "string", "maxLength": 3},
            "node": CLOSED
            | {
                "properties": {
                    "id": {"$ref": "#/$defs/id"},
                    "text": {"$ref": "#/$defs/text"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
                },
                "required": ["id"],
            },
        },
        "$ref": "#/$defs/node",
    },
    {"if": {"type": "string"}},
    {"not": False, "dependentRequired": {}, "unevaluatedProperties": {}, "then": {"type": "null"}},
    INTEGER | {"propertyNames": {"maxLength": 1}, "contains": {}, "uniqueItems": True},
    {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": INTEGER},
    {"title": 5, "x-vendor": {"type": "bad"}, "default": 9007199254740993, "examples": [{"$ref": 7}], "type": "null"},
]

REFUSED = [
    ('{"properties": {"a": {"const": 9007199254740993}}}', "#/properties/a/const"),
    ('{"oneOf": [{"type": "null"}, {"enum": [[{"a": -9007199254740993}]]}]}', "#/oneOf/1/enum/0/0/a"),
    ('{"type": "array", "items": {"type": "number", "minimum": 9007199254740993}}', "#/items/minimum"),
    ('{"maximum": 18446744073709551615}', "#/maximum"),
    ('{"type": "integer", "minimum": 9007199254740993, "multipleOf": 3}', "#/minimum"),
    ('{"type": "integer", "minimum": 9007199254740994, "maximum": 9007199254740993}', "#"),
    ('{"type": "string", "enum": [9007199254740993]}', "#"),
    ('{"type": "integer", "multipleOf": 9007199254740993}', "#/multipleOf"),
    ('{"type": "integer", "multipleOf": 0}', "#/multipleOf"),
    ('{"type": "number", "multipleOf": 0.07}', "#/multipleOf"),
    ('{"allOf": [{"multipleOf": 70000}, {"multipleOf": 99999}]}', "#/allOf/1/multipleOf"),
    ('{"$defs": {"a": {"const": 1e400}}, "items": {"$ref": "#/$defs/a"}}', "#/$defs/a/const"),
    ('{"maximum": 1e-400}', "#/maximum"),
    ('{"minLength": 9007199254740993}', "#/minLength"),
    ('{"maxLength": -1}', "#/maxLength"),
    ('{"maxItems": 1.5}', "#/maxItems"),
    ('{"enum": []}', "#/enum"),
    ('{"type": []}', "#/type"),
    ('{"items": {"type": "any"}}', "#/items/type"),
    ('{"anyOf": [{"properties": 5}]}', "#/anyOf/0/properties"),
    ('{"properties": {"a": 5}}', "#/properties/a"),
    ('{"required": "a"}', "#/required"),
    ('{"minimum": "5"}', "#/minimum"),
    ('{"pattern": 5}', "#/pattern"),
    ('{"$ref": "http://json-schema.org/draft-07/schema"}', "#/$ref"),
    ('{"properties": {"a": {"$ref": "#/$defs/none"}}}', "#/properties/a/$ref"),
    ('{"$ref": "#nowhere"}', "#/$ref"),
    ('{"const": "\\ud800"}', "#/const"),
    ('{"properties": {"\\ud800": {}}}', "#/properties"),
    ('{"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}', "#/minProperties"),
    ('{"$ref": "#"}', "#"),
    ('{"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}', "#"),
    ('{"type": "array", "items": {"$ref": "#"}, "minItems": 1}', "#"),
    ('{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}', "#"),
]


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # Python reads [[ and && otherwise some day
@pytest.mark.parametrize("schema", TAKEN, ids=lambda schema: json.dumps(schema)[:60])
def test_answers_fulfil_their_schema(schema: dict[str, Any]) -> None:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    values = answers(compile_schema(json.dumps(schema)), 25)
    assert values
    for value in values:
        kind(schema).validate(value)


@pytest.mark.parametrize(("schema", "place"), REFUSED)
def test_what_answers_cannot_be_held_to_is_named_with_its_place(schema: str, place: str) -> None:
    with pytest.raises(SchemaError) as refused:
        compile_schema(schema)
    assert f"{refused.value}".startswith(f"{place}: ")


FORMS = (
    '{"const": NUMBER}',
    '{"enum": [NUMBER]}',
    '{"const": [{"a": NUMBER}]}',
    '{"type": "object", "properties": {"a": {"const": NUMBER}}, "required": ["a"], "additionalProperties": false}',
    '{"type":"array","items": {"$ref": "#/$defs/a"}, "maxItems": 1, "minItems": 1, "$defs": {"a": {"enum": [NUMBER]}}}',
)


def require_refusal(is_due: bool) -> None:
    assert is_due, "a schema was refused that need not be"


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(2**53 - 3, 2**53 + 3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-10, 10).map(repr),
    st.sampled_from(
        [
            "-0",
            "-0.0",
            "1.0",
            "1e2",
            "1E+22",
            "1e400",
            "1e-7",
            "0.30000000000000004",
            "5e-324",
            "10e-1",
            "9007199254740993.5",
        ]
    ),
    st.decimals(-(10**6), 10**6, allow_nan=False, places=20).map(str),
)


@settings(max_examples=200, deadline=None)
@given(number=NUMBERS, form=st.sampled_from(FORMS))
def test_a_number_that_must_be_repeated_keeps_each_digit(number: str, form: str) -> None:
    matcher = compile_schema(form.replace("NUMBER", number))
    repeated = [json.loads(text, parse_float=Decimal, parse_int=Decimal) for text in texts(matcher, 3)]
    assert repeated
    for value in repeated:
        while isinstance(value, (dict, list)):
            (value,) = value.values() if isinstance(value, dict) else value
        assert value == Decimal(number)
        assert float(value) == float(number)


@settings(max_examples=200, deadline=None)
@given(low=st.integers(-(2**70), 2**70), width=st.one_of(st.integers(0, 300), st.integers(0, 2**71)), data=st.data())
def test_ranges_of_integers_of_any_size_are_exact(low: int, width: int, data: st.DataObject) -> None:
    high = low + width
    expression = re.compile(integer_pattern(low, high))
    inside = st.one_of(st.integers(low, high), st.sampled_from([low, high]))
    assert expression.fullmatch(str(data.draw(inside)))
    outside = st.one_of(st.integers(1, 300), st.integers(1, 2**80)).flatmap(
        lambda beyond: st.sampled_from([low - beyond, high + beyond])
    )
    assert not expression.fullmatch(str(data.draw(outside)))
    for unbounded, value in ((integer_pattern(low, None), high), (integer_pattern(None, high), low)):
        assert re.fullmatch(unbounded, str(value))
    assert not re.fullmatch(integer_pattern(low, None), str(low - 1))
    assert not re.fullmatch(integer_pattern(None, high), str(high + 1))


@settings(max_examples=300, deadline=None)
@given(
    bounds=st.dictionaries(
        st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
        st.one_of(st.integers(-5, 5), st.floats(-3, 3), st.sampled_from([2**53, -(2**53), 0.1, 1e-9, 12345.678])),
        min_size=1,
    ),
    kind=st.sampled_from(["integer", "number", ["number", "null"]]),
)
def test_numbers_are_within_their_bounds(bounds: dict[str, float], kind: Any) -> None:
    schema = {"type": kind} | bounds
    try:
        matcher = compile_schema(json.dumps(schema))
    except (SchemaError, ValueError) as error:
        require_refusal(any(reason in f"{error}" for reason in ("nsatisfiable", "2**53", "more digits")))
        return
    for value in answers(matcher, 8):
        jsonschema.validate(value, schema)


def test_no_key_hides_from_its_rule_behind_an_escape() -> None:
    named = {"type": "object", "properties": {"a": INTEGER}}
    for schema in (named, {"type": "object", "patternProperties": {"^a": INTEGER}}):
        matcher = compile_schema(json.dumps(schema))
        assert accepts(matcher, '{"a": 1, "b": "x"}')
        assert not accepts(matcher, '{"a": 1, "\\u0061": "x"}')
        assert not accepts(matcher, '{"\\u0061": "x"}')


def test_a_model_may_write_any_character_as_an_escape() -> None:
    matcher = compile_schema('{"type": "string", "maxLength": 4}')
    assert accepts(matcher, '"caf\\u00e9"')
    assert accepts(matcher, '"\\ud83d\\ude00"')
    assert not accepts(matcher, '"\\ud83d"')
    assert not accepts(matcher, '"cafe\\u0301"')


@pytest.mark.parametrize(
    "format", ["password", "binary", "byte", "uri-reference", "iri", "idn-email", "my-own", "int64"]
)
def test_formats_that_are_annotations_change_nothing(format: str) -> None:
    assert prepare_schema({"type": "string", "format": format}).schema == {"type": "string"}


@pytest.mark.parametrize("format", FORMATS)
def test_formats_that_answers_are_held_to_stay_enforced(format: str) -> None:
    matcher = compile_schema(json.dumps({"type": "string", "format": format}))
    assert not accepts(matcher, '"no such thing"')
    assert not accepts(matcher, '""')


def test_a_schema_of_many_references_or_levels_is_refused_with_the_limit() -> None:
    many = {"$defs": {f"{index}": {"$ref": f"#/$defs/{index + 1}"} for index in range(1100)}, "$ref": "#/$defs/0"}
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"items": deep}
    for schema, limit in ((many, "1000 definitions"), (deep, "128 levels of nesting")):
        with pytest.raises(SchemaError) as refused:
            prepare_schema(schema)
        assert refused.value.limit == limit
