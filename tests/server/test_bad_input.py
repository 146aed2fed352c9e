"""Bad input over the wire gets its status with the field named, and the next call on the connection works."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import InvalidRequestError, ModelNotFoundError
from abstractllm.testing import ScriptedProvider
from abstractllm.types import Capabilities
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.ceilings import check_ceilings
from abstractllm_server.convert.wire_format import check_field_count
from tests.reliability.server_process import serving as process_serving
from tests.server.support import HANG, Serving, collect, failure, request, serving

P = pb.GenerationParameters
USER, ASSISTANT = pb.ROLE_USER, pb.ROLE_ASSISTANT


def chat(*parts: pb.Part, role: int = USER) -> pb.GenerateRequest:
    messages = [pb.ChatMessage(role=role, parts=parts)]  # type: ignore[arg-type]
    return pb.GenerateRequest(chat=pb.Chat(messages=messages))


def options(**values: Any) -> pb.GenerateRequest:
    message = request()
    message.provider_options.update(values)
    return message


def tools(*names: str, **fields: Any) -> pb.GenerateRequest:
    return request(tools=[pb.Tool(name=name) for name in names], **fields)


FIRST = "chat.messages[0]"
FORMAT = "response_format"
BAD: list[tuple[str, Callable[[], pb.GenerateRequest], str]] = [
    ("no input", lambda: pb.GenerateRequest(), "prompt"),
    ("empty prompt", lambda: request(""), "prompt"),
    ("empty chat", lambda: pb.GenerateRequest(chat=pb.Chat()), "prompt"),
    ("role unspecified", lambda: chat(pb.Part(text="x"), role=0), f"{FIRST}.role"),
    ("unknown role", lambda: chat(pb.Part(text="x"), role=99), f"{FIRST}.role"),
    ("system message last", lambda: chat(pb.Part(text="x"), role=pb.ROLE_SYSTEM), f"{FIRST}.role"),
    ("no parts", lambda: chat(), f"{FIRST}.parts"),
    ("part unset", lambda: chat(pb.Part(text="x"), pb.Part()), f"{FIRST}.parts[1].part"),
    ("image type", lambda: chat(pb.Part(image=pb.Image(data=b"x"))), f"{FIRST}.parts[0].image.mime_type"),
    ("empty image", lambda: chat(pb.Part(image=pb.Image(mime_type="image/png"))), f"{FIRST}.parts[0].image.data"),
    (
        "image of the model",
        lambda: chat(pb.Part(image=pb.Image(data=b"x", mime_type="image/png")), role=ASSISTANT),
        f"{FIRST}.parts[0].image",
    ),
    (
        "tool result without an id",
        lambda: chat(pb.Part(tool_result=pb.ToolResult(content="x")), role=pb.ROLE_TOOL),
        f"{FIRST}.parts[0].tool_result.tool_call_id",
    ),
    ("negative max_tokens", lambda: request(parameters=P(max_tokens=-1)), "parameters.max_tokens"),
    ("temperature 3", lambda: request(parameters=P(temperature=3)), "parameters.temperature"),
    ("temperature NaN", lambda: request(parameters=P(temperature=float("nan"))), "parameters.temperature"),
    ("top_p infinite", lambda: request(parameters=P(top_p=float("inf"))), "parameters.top_p"),
    ("bias NaN", lambda: request(parameters=P(logit_bias={7: float("nan")})), "parameters.logit_bias[7]"),
    ("negative token", lambda: request(parameters=P(logit_bias={-1: 1.0})), "parameters.logit_bias[-1]"),
    ("empty stop", lambda: request(parameters=P(stop=["a", ""])), "parameters.stop[1]"),
    ("unknown effort", lambda: request(parameters=P(reasoning_effort=99)), "parameters.reasoning_effort"),  # type: ignore[arg-type]
    ("unknown policy", lambda: request(parameters_policy=99), "parameters_policy"),
    ("unknown option", lambda: options(strange=1), "provider_options.strange"),
    ("NaN option", lambda: options(delay=float("nan")), "provider_options.delay"),
    ("infinite option", lambda: options(script=[{"delay": float("inf")}]), "provider_options.script[0].delay"),
    ("option out of range", lambda: options(delay=-1), "provider_options.delay"),
    ("option of another type", lambda: options(delay="soon"), "provider_options.delay"),
    ("script that is none", lambda: options(script=5), "provider_options.script"),
    ("script that is a text", lambda: options(script="abc"), "provider_options.script"),
    ("empty script", lambda: options(script=[]), "provider_options.script"),
    ("step that is null", lambda: options(script=[None]), "provider_options.script"),
    ("step that is a text", lambda: options(script=["abc"]), "provider_options.script"),
    ("unknown step", lambda: options(script=[{"dance": 1}]), "provider_options.script"),
    ("unknown fact", lambda: options(script=[{"error": "TIMEOUT", "partial": 1}]), "provider_options.script"),
    ("fact's type", lambda: options(script=[{"error": "TIMEOUT", "retry_after": "x"}]), "provider_options.script"),
    ("reply that is none", lambda: options(reply=None), "provider_options.reply"),
    ("empty format", lambda: request(response_format=pb.ResponseFormat()), f"{FORMAT}.format"),
    ("empty regex", lambda: request(response_format=pb.ResponseFormat(regex="")), f"{FORMAT}.regex"),
    ("empty grammar", lambda: request(response_format=pb.ResponseFormat(grammar="")), f"{FORMAT}.grammar"),
    (
        "schema that is no JSON",
        lambda: request(response_format=pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(schema_json="{"))),
        f"{FORMAT}.json_schema.schema_json",
    ),
    (
        "schema of deep JSON",
        lambda: request(response_format=pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(schema_json="[" * 60_000))),
        f"{FORMAT}.json_schema.schema_json",
    ),
    ("tool without a name", lambda: tools(""), "tools[0].name"),
    ("tool's name", lambda: tools("a", "b c"), "tools[1].name"),
    ("tools of one name", lambda: tools("a", "a"), "tools[1].name"),
    (
        "tool's schema",
        lambda: request(tools=[pb.Tool(name="a", parameters_json_schema="[]")]),
        "tools[0].parameters_json_schema",
    ),
    ("choice unset", lambda: tools("a", tool_choice=pb.ToolChoice()), "tool_choice.choice"),
    ("unknown choice", lambda: tools("a", tool_choice=pb.ToolChoice(mode=99)), "tool_choice.mode"),  # type: ignore[arg-type]
    ("choice of no tool", lambda: tools("a", tool_choice=pb.ToolChoice(name="b")), "tool_choice.name"),
    (
        "choice without tools",
        lambda: request(tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)),
        "tool_choice.mode",
    ),
]


@pytest.mark.parametrize(("make", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_bad_request_is_refused_by_field(
    served: Serving, make: Callable[[], pb.GenerateRequest], field: str
) -> None:
    unary = await failure(served.generation.Generate(make()))
    stream = await failure(collect(served.generation.StreamGenerate(make())))
    for error in (unary, stream):
        assert error.code.name == "INVALID_ARGUMENT"
        assert error.reason in ("INVALID_REQUEST", "UNSUPPORTED_PARAMETER")
        assert error.metadata["field"] == field
        assert error.fields == [field]
        assert field in error.message
        assert (error.retry_delays, error.pushbacks) == ([], [])
    await served.works()


async def test_unknown_llm_is_not_found_in_every_method(served: Serving) -> None:
    name = "nobody"
    calls = [
        served.generation.Generate(request(llm=name)),
        collect(served.generation.StreamGenerate(request(llm=name))),
        served.generation.CountTokens(pb.CountTokensRequest(llm=name, prompt="x")),
        served.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm=name)),
        served.models.ListCachedModels(models_pb2.ListCachedModelsRequest(llm=name)),
        served.models.ClearCache(models_pb2.ClearCacheRequest(llm=name, model="x")),
        collect(served.models.PullModel(models_pb2.PullModelRequest(llm=name))),
        collect(served.models.LoadModel(models_pb2.LoadModelRequest(llm=name))),
        collect(served.models.UnloadModel(models_pb2.UnloadModelRequest(llm=name))),
        served.config.GetConfig(config_pb2.GetConfigRequest(llm=name)),
        served.config.SetConfig(config_pb2.SetConfigRequest(llm=name)),
    ]
    for call in calls:
        error = await failure(call)
        assert (error.code.name, error.reason) == ("NOT_FOUND", "UNKNOWN_LLM")
        assert error.metadata["field"] == "llm"
        assert error.metadata["requested"] == name
        assert error.metadata["limit"] == "echo"
    await served.works()


async def test_model_beyond_the_configured_list_is_not_found() -> None:
    llm = ScriptedProvider({"model": "a", "models": ["b"]})
    async with serving({"echo": llm}) as served:
        for model in ("a", "b"):
            assert (await served.generation.Generate(request(parameters=P(model=model)))).model == model
        long = "m" * 250
        for model in ("c", "A", long):
            calls = {
                "parameters.model": served.generation.Generate(request(parameters=P(model=model))),
                "model": served.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(model=model)),
            }
            for field, call in calls.items():
                error = await failure(call)
                assert (error.code.name, error.reason) == ("NOT_FOUND", ModelNotFoundError.default_reason)
                assert (error.fields, error.metadata["limit"]) == ([field], "a, b")
            counted = await failure(served.generation.CountTokens(pb.CountTokensRequest(prompt="x", model=model)))
            assert (counted.reason, counted.fields) == ("MODEL_NOT_FOUND", ["model"])
        await served.works()


@pytest.mark.parametrize("model", ["", "m" * 257])
async def test_malformed_model_is_refused_by_field(served: Serving, model: str) -> None:
    counted = await failure(served.generation.CountTokens(pb.CountTokensRequest(prompt="x", model=model)))
    generated = await failure(served.generation.Generate(request(parameters=P(model=model))))
    assert [error.reason for error in (counted, generated)] == ["INVALID_REQUEST"] * 2
    assert [error.fields for error in (counted, generated)] == [["model"], ["parameters.model"]]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: request(tools=[pb.Tool(name="a")]), "tools"),
        (lambda: request(system_prompt="be kind"), "system_prompt"),
        (lambda: chat(pb.Part(text="x")), "chat"),
        (lambda: chat(pb.Part(image=pb.Image(data=b"x", mime_type="image/png"))), "chat.messages.image"),
        (lambda: request(response_format=pb.ResponseFormat(regex="a+")), "response_format.regex"),
        (lambda: request(response_format=pb.ResponseFormat(grammar="a")), "response_format.grammar"),
        (
            lambda: request(response_format=pb.ResponseFormat(json_object=pb.JsonObjectFormat())),
            "response_format.json_object",
        ),
    ],
)
async def test_feature_that_the_llm_lacks_is_unimplemented(make: Callable[[], pb.GenerateRequest], field: str) -> None:
    bare = ScriptedProvider(capabilities=Capabilities(system_prompt=False, chat=False))
    async with serving({"bare": bare}) as served:
        error = await failure(served.generation.Generate(make()))
    assert (error.code.name, error.reason) == ("UNIMPLEMENTED", "UNSUPPORTED_FEATURE")
    assert error.metadata["field"] == field
    assert bare.requests == []


def nested(depth: int) -> bytes:
    """A request whose provider options are nested; written by hand, since the encoder refuses it."""
    value = b""
    for _ in range(depth):
        value = _field(1, _field(1, b"k") + _field(2, _field(5, value)))
    return _field(2, b"hello") + _field(9, value)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _sized(content)


def _sized(content: bytes) -> bytes:
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return size + bytes([length]) + content


GOOD = pb.GenerateRequest(prompt="hello", request_id="x" * 40).SerializeToString()
UNDECODABLE = {
    "prompt of invalid UTF-8": b"\x12\x02\xff\xfe",
    "surrogate in UTF-8": b"\x12\x03\xed\xa0\x80",
    "label of invalid UTF-8": b"\x12\x01a\x5a\x05\x0a\x01\xff\x12\x00",
    "truncated": GOOD[:-5],
    "not protobuf": b"this is not a message at all",
    "wrong wire type": b"\x10\x05\x13",
    "endless varint": b"\x08" + b"\xff" * 40,
    "huge length": b"\x12\xff\xff\xff\xff\x0f",
    "nested 5,000 deep": nested(5_000),
}


@pytest.mark.parametrize("data", UNDECODABLE.values(), ids=UNDECODABLE)
@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_undecodable_bytes_are_an_invalid_argument(served: Serving, data: bytes, method: str) -> None:
    path = f"/abstractllm_api.v1.GenerationService/{method}"
    call = served.channel.unary_unary(path) if method == "Generate" else served.channel.unary_stream(path)
    answer = call(data)
    error = await failure(answer if method == "Generate" else collect(answer))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "decode" in error.message
    await served.works()


async def test_undecodable_bytes_are_refused_by_every_method(served: Serving) -> None:
    for file in (pb.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                call = served.channel.unary_stream(f"/{service.full_name}/{method.name}")
                error = await failure(collect(call(b"\x0a\x02\xff\xfe" if method.input_type.fields else b"\x0a\x7f")))
                assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST"), method.full_name


async def test_unknown_fields_of_a_newer_contract_are_passed_over(served: Serving) -> None:
    call = served.channel.unary_unary("/abstractllm_api.v1.GenerationService/Generate")
    data = await call(pb.GenerateRequest(prompt="hello").SerializeToString() + b"\xf2\x7f\x03new")
    assert pb.GenerateResponse.FromString(data).text == "hello"


async def test_message_over_the_limit_is_resource_exhausted(served: Serving) -> None:
    error = await failure(served.generation.Generate(request("x" * (17 * 1024 * 1024))))
    assert error.code.name == "RESOURCE_EXHAUSTED"
    assert "16777216" in error.message
    await served.works()


async def test_message_just_within_the_limit_is_answered(served: Serving) -> None:
    prompt = "x" * (15 * 1024 * 1024)
    answer = await served.generation.CountTokens(pb.CountTokensRequest(prompt=prompt), timeout=HANG)
    assert answer.input_tokens == 1


MANY = 3_000_000
CROWDED = {
    "tools": (b"\x12\x01x" + b"\x3a\x00" * MANY, "tools"),
    "messages": (b"\x1a\x02\x0a\x00" * MANY, "chat.messages"),
    "parts": (_field(3, _field(1, b"\x08\x02" + b"\x12\x02\x0a\x00" * MANY)), "chat.messages"),
    "stop": (b"\x12\x01x" + b"\x2a\x02\x5a\x00" * MANY, "parameters.stop"),
    "options": (
        b"\x12\x01x" + _field(9, _field(1, b"\x0a\x01k\x12" + _sized(_field(6, b"\x0a\x00" * MANY)))),
        "provider_options",
    ),
}


@pytest.mark.parametrize("name", CROWDED)
async def test_crowded_list_is_refused_without_holding_up_others(served: Serving, name: str) -> None:
    data, field = CROWDED[name]
    call = served.channel.unary_unary("/abstractllm_api.v1.GenerationService/Generate")
    began = time.monotonic()
    error, _ = await asyncio.gather(failure(call(data)), served.works())
    assert (error.reason, error.fields) == ("INVALID_REQUEST", [field])
    assert time.monotonic() - began < HANG


FURTHER = {
    "labels": (b"\x5a\x00" * MANY, "labels"),
    "options": (_field(9, _field(1, b"") * MANY), "provider_options"),
    "unknown fields": (b"\x98\x7d\x01" * MANY, "unknown fields"),
    "texts of parts": (_field(3, _field(1, _field(2, b"\x0a\x00" * MANY))), "chat.messages"),
}


@pytest.mark.parametrize(("data", "field"), [*CROWDED.values(), *FURTHER.values()], ids=[*CROWDED, *FURTHER])
def test_crowded_message_is_refused_before_it_is_decoded(data: bytes, field: str) -> None:
    with pytest.raises(InvalidRequestError, match="200000 fields") as refusal:
        check_field_count(data, pb.GenerateRequest.DESCRIPTOR)
    assert refusal.value.field == field
    # What is cut off or no message at all is left to the decoder.
    check_field_count(data[:100_000] + b"\x80" * 100_000, pb.GenerateRequest.DESCRIPTOR)
    check_field_count(b"\xff" * 100_000, pb.GenerateRequest.DESCRIPTOR)


def test_message_that_makes_use_of_all_ceilings_is_let_through() -> None:
    message = pb.GenerateRequest(chat=pb.Chat(), labels={str(number): "x" for number in range(32)})
    for number in range(4096):
        parts = [pb.Part(tool_call={"id": "1", "name": "f", "arguments_json": "{}"}, provider_state=b"s")] * 2
        message.chat.messages.add(role=1 + number % 4, parts=parts)
    message.provider_options.update({"list": [None] * 60_000})
    message.tools.extend([pb.Tool(name="f", description="d", parameters_json_schema="{}")] * 128)
    check_ceilings(message)
    check_field_count(message.SerializeToString(), pb.GenerateRequest.DESCRIPTOR)


async def test_crowded_message_takes_little_memory(tmp_path: Path) -> None:
    async with process_serving(tmp_path) as server, server.channel([("grpc.max_send_message_length", -1)]) as channel:
        before = server.rss
        server.reset_peak()
        call = channel.unary_unary("/abstractllm_api.v1.GenerationService/Generate")
        error = await failure(call(b"\x3a\x00" * (7 << 20)))
        assert error.fields == ["tools"]
        assert server.peak - before < 150
