"""Every numeric, list and text field at its least and greatest value, and one beyond, named in the refusal."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.support import Serving, failure, request

INT32, INT64 = 2**31 - 1, 2**63 - 1
P = pb.GenerationParameters


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


TINY = above(0.0)
NUMBERS: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0.0, -0.0, 2.0], [below(0), above(2), -1e308]),
    "top_p": ([TINY, 1.0], [0.0, above(1)]),
    "top_k": ([0, 1_000_000], [-1, 1_000_001, INT32, -INT32 - 1]),
    "min_p": ([0.0, 1.0], [below(0), above(1)]),
    "max_tokens": ([1, 10_000_000], [0, -1, 10_000_001, INT32, -INT32 - 1]),
    "seed": ([0, -1, -INT64 - 1, INT64], []),
    "presence_penalty": ([-2.0, 2.0], [below(-2), above(2)]),
    "frequency_penalty": ([-2.0, 2.0], [below(-2), above(2)]),
    "repetition_penalty": ([TINY, 10.0], [0.0, above(10)]),
    "top_logprobs": ([0, 20], [-1, 21, INT32]),
}
FINE = [(name, value) for name, (good, _) in NUMBERS.items() for value in good]
WRONG = [(name, value) for name, (_, bad) in NUMBERS.items() for value in bad] + [
    (name, value)
    for name, (good, _) in NUMBERS.items()
    if isinstance(good[0], float)
    for value in (math.nan, math.inf, -math.inf)
]


def test_every_number_of_the_parameters_is_in_the_table() -> None:
    fields = P.DESCRIPTOR.fields
    numbers = {
        field.name
        for field in fields
        if not field.is_repeated and field.type not in (field.TYPE_STRING, field.TYPE_ENUM)
    }
    assert numbers == set(NUMBERS)


@pytest.mark.parametrize(("name", "value"), FINE)
async def test_number_within_its_range_is_taken_as_it_is(served: Serving, name: str, value: float) -> None:
    await served.generation.Generate(request(parameters=P(**{name: value})))
    (received,) = served.scripted().requests
    assert getattr(received.parameters, name) == value


@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_number_beyond_its_range_is_refused_by_name(served: Serving, name: str, value: float) -> None:
    error = await failure(served.generation.Generate(request(parameters=P(**{name: value}))))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert error.fields == [error.metadata["field"]] == [f"parameters.{name}"]
    assert error.metadata["requested"] == repr(value)
    assert error.metadata["limit"].split()[0] in ("at", "greater", "finite")

    change = config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(parameters=P(**{name: value})))
    error = await failure(served.config.SetConfig(change))
    assert (error.code.name, error.fields) == ("INVALID_ARGUMENT", [f"config.parameters.{name}"])
    assert served.scripted().requests == []


def tool(name: str = "t", **fields: str) -> pb.Tool:
    return pb.Tool(name=name, **fields)


def schema(size: int) -> str:
    return '{"a":"' + "x" * (size - 8) + '"}'


def parts(count: int) -> pb.GenerateRequest:
    message = pb.ChatMessage(role=pb.ROLE_USER, parts=[pb.Part(text="x")] * count)
    return pb.GenerateRequest(chat=pb.Chat(messages=[message]))


def messages(count: int) -> pb.GenerateRequest:
    message = pb.ChatMessage(role=pb.ROLE_USER, parts=[pb.Part(text="x")])
    return pb.GenerateRequest(chat=pb.Chat(messages=[message] * count))


def options(count: int) -> pb.GenerateRequest:
    message = request()
    message.provider_options.update({f"k{index}": 1 for index in range(count)})
    message.parameters_policy = pb.PARAMETERS_POLICY_DROP_UNSUPPORTED
    return message


def options_size(size: int) -> pb.GenerateRequest:
    # Of the size, 19 bytes are the key and the lengths.
    message = request(reply="x" * (size - 19))
    assert message.provider_options.ByteSize() == size
    return message


def formatted(**fields: Any) -> pb.GenerateRequest:
    return request(response_format=pb.ResponseFormat(**fields))


# A field, its greatest size, and a request with so much of it.
SIZES: list[tuple[str, int, Callable[[int], pb.GenerateRequest]]] = [
    ("chat.messages", 4096, messages),
    ("chat.messages", 8192, parts),
    ("parameters.stop", 16, lambda n: request(parameters=P(stop=[str(i) for i in range(n)]))),
    ("parameters.stop[0]", 256, lambda n: request(parameters=P(stop=["漢" * n]))),
    ("parameters.logit_bias", 1024, lambda n: request(parameters=P(logit_bias=dict.fromkeys(range(n), 1.0)))),
    ("tools", 128, lambda n: request(tools=[tool(f"t{index}") for index in range(n)])),
    ("tools[0].name", 64, lambda n: request(tools=[tool("t" * n)])),
    ("tools[0].parameters_json_schema", 65_536, lambda n: request(tools=[tool(parameters_json_schema=schema(n))])),
    (
        "response_format.json_schema.schema_json",
        65_536,
        lambda n: formatted(json_schema=pb.JsonSchemaFormat(schema_json=schema(n))),
    ),
    ("response_format.regex", 65_536, lambda n: formatted(regex="x" * n)),
    ("response_format.grammar", 65_536, lambda n: formatted(grammar="x" * n)),
    ("request_id", 256, lambda n: request(request_id="漢" * n)),
    ("labels", 32, lambda n: request(labels={str(index): "x" for index in range(n)})),
    ("labels.a", 256, lambda n: request(labels={"a": "漢" * n})),
    ("provider_options", 64, options),
    ("provider_options", 262_144, options_size),
]


@pytest.mark.parametrize(("field", "most", "make"), SIZES, ids=[f"{row[0]}-{row[1]}" for row in SIZES])
async def test_list_or_text_is_taken_up_to_its_limit_and_named_beyond(
    served: Serving, field: str, most: int, make: Callable[[int], pb.GenerateRequest]
) -> None:
    await served.generation.Generate(make(most))
    error = await failure(served.generation.Generate(make(most + 1)))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert error.fields == [error.metadata["field"]] == [field]
    assert str(most) in error.metadata["limit"] or "64 letters" in error.message
    await served.works()


@pytest.mark.parametrize(("value", "good"), [(-100.0, True), (100.0, True), (below(-100), False), (above(100), False)])
async def test_logit_bias_has_its_range(served: Serving, value: float, good: bool) -> None:
    message = request(parameters=P(logit_bias={INT32: value, 0: 1.0}))
    if good:
        await served.generation.Generate(message)
        assert served.scripted().requests[0].parameters.logit_bias == {INT32: value, 0: 1.0}
    else:
        error = await failure(served.generation.Generate(message))
        assert error.fields == [f"parameters.logit_bias[{INT32}]"]


@pytest.mark.parametrize("size", [-1, 1001, INT32, -INT32 - 1])
async def test_page_size_beyond_its_range_is_refused(served: Serving, size: int) -> None:
    error = await failure(served.models.ListCachedModels(models_pb2.ListCachedModelsRequest(page_size=size)))
    assert (error.reason, error.fields, error.metadata["limit"]) == ("INVALID_REQUEST", ["page_size"], "1000")


async def test_count_tokens_has_the_limits_of_generate(served: Serving) -> None:
    for message, field in [
        (pb.CountTokensRequest(), "prompt"),
        (pb.CountTokensRequest(prompt=""), "prompt"),
        (pb.CountTokensRequest(chat=messages(4097).chat), "chat.messages"),
        (pb.CountTokensRequest(prompt="x", tools=[tool(f"t{index}") for index in range(129)]), "tools"),
        (pb.CountTokensRequest(prompt="x", tools=[tool("")]), "tools[0].name"),
    ]:
        error = await failure(served.generation.CountTokens(message))
        assert (error.reason, error.fields) == ("INVALID_REQUEST", [field])


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("max_retries", [0, 10], [-1, 11, INT32]),
        ("model", ["script"], ["m" * 257]),
    ],
)
async def test_configuration_field_has_its_range(served: Serving, field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        await served.config.SetConfig(config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(**{field: value})))
    for value in bad:
        change = config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(**{field: value}))
        error = await failure(served.config.SetConfig(change))
        assert error.code.name in ("INVALID_ARGUMENT", "NOT_FOUND")
        assert error.fields == [f"config.{field}"]


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (-1, 0), (604_800, 1), (315_576_000_000, 0), (2**63 - 1, 0)])
async def test_timeout_beyond_its_range_is_refused(served: Serving, seconds: int, nanos: int) -> None:
    change = config_pb2.SetConfigRequest()
    change.config.timeout.seconds, change.config.timeout.nanos = seconds, nanos
    error = await failure(served.config.SetConfig(change))
    assert (error.code.name, error.fields) == ("INVALID_ARGUMENT", ["config.timeout"])
