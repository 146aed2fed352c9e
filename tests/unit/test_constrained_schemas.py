"""Whatever the schema, an answer that ends by itself fulfils it: generated schemas, a model of random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.protocol.messages import Format
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.test_constrained_answers import HeldHarness, load
from tests.unit.tiny_models import build

NAMES = ("a", "b", "city", 'qu"ote', "ümlaut", "a b", "")
PATTERNS = ("^[a-z]{1,3}$", "^(yes|no)$", "^[0-9]{2}-[0-9]{2}$", "^[^a-z]{2}$", "x", "^$")
FORMATS = ("date", "time", "uuid", "ipv4", "hostname")
SEEDS = 4


@st.composite
def bounded(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    values = st.integers(-300, 300) if kind == "integer" else st.integers(-3000, 3000).map(lambda value: value / 100)
    low, high = sorted((draw(values), draw(values)))
    schema: dict[str, Any] = {"type": kind}
    if draw(st.booleans()):
        schema["minimum"] = low
    if draw(st.booleans()):
        schema["maximum"] = high
    if kind == "integer" and low <= 0 <= high and draw(st.booleans()):
        schema["multipleOf"] = draw(st.sampled_from((2, 5, 30)))
    return schema


@st.composite
def lengthy(draw: st.DrawFn) -> dict[str, Any]:
    low, more = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return {"type": "string", "minLength": low, "maxLength": low + more}


LEAVES = st.one_of(
    bounded("integer"),
    bounded("number"),
    lengthy(),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from(FORMATS).map(lambda format: {"type": "string", "format": format}),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {"const": [1, {"a": None}]}]
    ),
    st.lists(st.one_of(st.integers(-9, 9), st.text(max_size=4), st.none(), st.booleans()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def build_one(draw: st.DrawFn) -> dict[str, Any]:
        properties = draw(st.dictionaries(st.sampled_from(NAMES), inner, max_size=4))
        required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
        more = draw(st.one_of(st.just(False), st.none(), inner))
        schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        return schema if more is None else schema | {"additionalProperties": more}

    return build_one()


def arrays(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    @st.composite
    def build_one(draw: st.DrawFn) -> dict[str, Any]:
        low, more = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        schema: dict[str, Any] = {"type": "array", "items": draw(inner), "minItems": low, "maxItems": low + more}
        if draw(st.booleans()):
            schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
        return schema

    return build_one()


def alternatives(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=2, max_size=3).map(lambda schemas: {"anyOf": schemas})
    shared = inner.map(
        lambda schema: {
            "$defs": {"part": schema},
            "type": "object",
            "properties": {"one": {"$ref": "#/$defs/part"}, "two": {"$ref": "#/$defs/part"}},
            "required": ["two"],
            "additionalProperties": False,
        }
    )
    return several | shared if inner is LEAVES else several


SCHEMAS = st.one_of(
    alternatives(LEAVES),
    st.recursive(LEAVES, lambda inner: st.one_of(objects(inner), arrays(inner), alternatives(inner)), max_leaves=5),
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldHarness]:
    loaded: LoadedModel = load(
        build(tmp_path_factory.mktemp("models") / "llama", "llama", seed=1, max_position_embeddings=256)
    )
    harness = HeldHarness(loaded)
    yield harness
    harness.engine.stop()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(schema=SCHEMAS, seed=st.integers(0, 1 << 40))
def test_an_answer_that_ends_by_itself_fulfils_its_schema(
    harness: HeldHarness, schema: dict[str, Any], seed: int
) -> None:
    format = Format("json_schema", json.dumps(schema))
    try:
        harness.loaded.grammars.compile(format)
    except InvalidRequestError as error:
        if "Unsatisfiable" not in error.message:
            raise
        return
    sampling = [{"temperature": 1.0}, {"temperature": 2.0, "top_k": 40}, {"top_p": 0.9}, {"temperature": 0.0}]
    requests = [harness.held("hello", format, 90, **sampling[each], seed=seed + each) for each in range(SEEDS)]
    for text, reason, _ in harness.answer(*requests):
        assert reason in ("stop", "max_tokens")
        if reason == "stop":
            jsonschema.validate(json.loads(text), schema)


def test_most_answers_to_small_schemas_end_by_themselves(harness: HeldHarness) -> None:
    """So that the test above does not pass for want of whole answers."""
    schemas = [
        {"type": "object", "properties": {"a": leaf}, "required": ["a"], "additionalProperties": False}
        for leaf in ({"type": "boolean"}, {"type": "string", "maxLength": 3}, {"enum": [1, "x"]})
    ]
    requests = [
        harness.held("hello", Format("json_schema", json.dumps(schema)), 90, temperature=1.0, seed=seed)
        for schema in schemas
        for seed in range(10)
    ]
    assert sum(reason == "stop" for _, reason, _ in harness.answer(*requests)) == 30
