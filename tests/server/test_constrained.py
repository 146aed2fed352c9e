"""Answers of the demo model held to a format, through gRPC and a real engine process."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.types import LlmState
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import models_pb2
from tests.server.support import Serving, failure, request, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOADING = 120.0
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
LONGEST = 65_536
ENDLESS = "start: X\nX: " + " & ".join(f"/(.*a.{{{count}}}.*)/" for count in range(1, 40))
"""A grammar that would take the compiler for ever."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    folder = str(tmp_path_factory.mktemp("cache"))  # the usual one lies in each test's own home
    llm = HuggingFaceProvider({"model": "demo", "temperature": 0, "threads": 2, "cache_dir": folder})
    async with serving({"demo": llm}) as running:
        yield running


def held(prompt: str = "hello", /, max_tokens: int = 60, **format: Any) -> pb.GenerateRequest:
    parameters = pb.GenerationParameters(max_tokens=max_tokens)
    return request(prompt, response_format=pb.ResponseFormat(**format), parameters=parameters)


def schema(schema: dict[str, Any]) -> dict[str, pb.JsonSchemaFormat]:
    return {"json_schema": pb.JsonSchemaFormat(name="answer", schema_json=json.dumps(schema))}


async def test_formats_count_as_possible_before_and_after_loading(demo: Serving) -> None:
    for _ in range(2):
        answer = await demo.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm="demo"))
        known = answer.capabilities
        assert known.json_object and known.json_schema and known.regex and known.grammar
        await demo.generation.Generate(request("hello"), timeout=LOADING)
    assert demo.registry["demo"].state[0] is LlmState.READY


async def test_the_capital_of_france_as_json(demo: Serving) -> None:
    message = held("What is the capital of France?", **schema(CITY))
    message.system_prompt = "Answer in JSON."
    answer = await demo.generation.Generate(message, timeout=LOADING)
    assert json.loads(answer.text) == {"city": "Paris"}
    assert answer.finish_reason == pb.FINISH_REASON_STOP
    pieces = [
        event.text_delta.text
        async for event in demo.generation.StreamGenerate(message, timeout=LOADING)
        if event.WhichOneof("event") == "text_delta"
    ]
    assert "".join(pieces) == answer.text


async def test_each_kind_of_format(demo: Serving) -> None:
    answer = await demo.generation.Generate(held(regex="[A-Z]{3}-[0-9]{3}"), timeout=LOADING)
    assert re.fullmatch("[A-Z]{3}-[0-9]{3}", answer.text)
    answer = await demo.generation.Generate(held(grammar='root ::= "left" | "right"'), timeout=LOADING)
    assert answer.text in ("left", "right")
    answer = await demo.generation.Generate(
        held('The JSON with name "Ann"', max_tokens=200, json_object=pb.JsonObjectFormat()), timeout=LOADING
    )
    if answer.finish_reason == pb.FINISH_REASON_STOP:
        assert isinstance(json.loads(answer.text), dict)
    assert answer.text.startswith("{")


@pytest.mark.parametrize(
    ("format", "field", "words"),
    [
        (schema({"not": {}}), "response_format.json_schema.schema_json", "not"),
        (schema({"$ref": "https://example.com/schema"}), "response_format.json_schema.schema_json", "example.com"),
        (schema({"enum": []}), "response_format.json_schema.schema_json", "empty"),
        (schema({"enum": ["x" * LONGEST]}), "response_format.json_schema.schema_json", "65536"),
        ({"regex": "(?=a)b"}, "response_format.regex", "look-around"),
        ({"regex": "(a"}, "response_format.regex", "unclosed"),
        ({"regex": "a" * (LONGEST + 1)}, "response_format.regex", "65536"),
        ({"grammar": "start: missing"}, "response_format.grammar", "missing"),
        ({"grammar": ENDLESS}, "response_format.grammar", "too complex"),
        ({"grammar": "nothing of this kind"}, "response_format.grammar", "GBNF"),
        ({"grammar": "#" * (LONGEST + 1)}, "response_format.grammar", "65536"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_format_is_named(demo: Serving, format: dict[str, Any], field: str, words: str) -> None:
    error = await failure(demo.generation.Generate(held(**format), timeout=LOADING))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert error.fields == [error.metadata["field"]] == [field]
    assert words in error.message


async def test_a_format_beside_tools_is_refused_unless_none_may_be_called(demo: Serving) -> None:
    both = held(**schema(CITY))
    both.tools.add(name="look", parameters_json_schema="{}")
    error = await failure(demo.generation.Generate(both, timeout=LOADING))
    assert error.reason == "UNSUPPORTED_FEATURE"
    assert error.metadata["field"] in ("tools", "response_format")
