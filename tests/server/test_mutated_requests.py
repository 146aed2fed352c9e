"""Thousands of mutated requests: each gets its answer or a refusal, never a fault of the server's."""

import asyncio
import math
import random
from collections import Counter
from typing import Any

from google.protobuf.message import Message
from grpc import aio

from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from tests.fuzz.corpus import mutated
from tests.server.support import HANG, Serving, failure_of, serving

REQUESTS = 4_000
AT_ONCE = 16
ALLOWED = {
    "Generate": {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"},
    "CountTokens": {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"},
    "SetConfig": {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ABORTED"},
    "GetCapabilities": {"OK", "INVALID_ARGUMENT", "NOT_FOUND"},
    "ListCachedModels": {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"},
    "ClearCache": {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"},
}
METHODS: dict[str, tuple[str, type[Message]]] = {
    "Generate": ("GenerationService", pb.GenerateRequest),
    "CountTokens": ("GenerationService", pb.CountTokensRequest),
    "SetConfig": ("ConfigService", config_pb2.SetConfigRequest),
    "GetCapabilities": ("ModelService", models_pb2.GetCapabilitiesRequest),
    "ListCachedModels": ("ModelService", models_pb2.ListCachedModelsRequest),
    "ClearCache": ("ModelService", models_pb2.ClearCacheRequest),
}
TEXTS = [
    "",
    "echo",
    "hello world",
    "\x00",
    "漢字😀",
    "{}",
    "[",
    '{"type": "object"}',
    "x" * 300,
    "script",
    "\u202e",
    "a.b",
]
NUMBERS = [0, 1, -1, 2, 5, 16, 0.5, 1.5, -0.0, 1e-320, 1e308, 2**31 - 1, -(2**31), 2**63 - 1, math.nan, math.inf]
KEYS = ["reply", "script", "strange", "text", "error", "finish", "tool_call", "break_off", "name"]
PATHS = ["parameters", "parameters.stop", "parameters.model", "timeout", "model", "", ".", "parameters.", "a.b", "*"]


def filled(kind: type[Message], chance: random.Random, depth: int = 0) -> Any:
    """A message whose fields are set at random to usual and unusual values."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if chance.random() < (0.5 if depth else 0.6):
            continue
        if kind.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
            message.paths.extend(chance.choices(PATHS, k=2))  # type: ignore[attr-defined]
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            put_entries(getattr(message, field.name), field.message_type, chance, depth)
        elif field.is_repeated:
            if depth < 6:
                count = chance.choice([0, 1, 1, 2, 3])
                values = [value_of(field, chance, depth) for _ in range(count)]
                getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            if depth < 6:
                getattr(message, field.name).CopyFrom(value_of(field, chance, depth))
        else:
            setattr(message, field.name, value_of(field, chance, depth))
    return message


def put_entries(entries: Any, kind: Any, chance: random.Random, depth: int) -> None:
    for _ in range(chance.randrange(3)):
        if kind.fields_by_name["value"].message_type is not None:
            if depth < 6:
                entries[chance.choice(KEYS)].CopyFrom(value_of(kind.fields_by_name["value"], chance, depth))
        else:
            key = value_of(kind.fields_by_name["key"], chance, depth)
            entries[key] = value_of(kind.fields_by_name["value"], chance, depth)


def value_of(field: Any, chance: random.Random, depth: int) -> Any:
    match field.type:
        case field.TYPE_MESSAGE:
            return filled(field.message_type._concrete_class, chance, depth + 1)
        case field.TYPE_STRING:
            return chance.choice(TEXTS)
        case field.TYPE_BYTES:
            return chance.randbytes(chance.randrange(20))
        case field.TYPE_BOOL:
            return chance.random() < 0.5
        case field.TYPE_ENUM:
            return chance.choice([0, 1, 2, 3, 6, 99, -1])
        case field.TYPE_DOUBLE:
            return float(chance.choice(NUMBERS))
        case _:
            bits = 31 if field.type == field.TYPE_INT32 else 63
            whole = [n for n in NUMBERS if isinstance(n, int) and -(2**bits) <= n < 2**bits]
            return chance.choice(whole)


async def test_mutated_requests_end_well_or_are_refused() -> None:
    chance = random.Random(20)
    ended: Counter[tuple[str, str]] = Counter()
    llms = {"echo": ScriptedProvider({"model": "script", "models": ["a"]}), "other": ScriptedProvider()}
    async with serving(llms) as served:
        work = [make(name, chance) for name in chance.choices(list(METHODS), [8, 2, 4, 1, 1, 1], k=REQUESTS)]

        async def worker() -> None:
            while work:
                method, data = work.pop()
                code = await outcome(served, method, data)
                ended[method, code] += 1
                assert code in ALLOWED[method], (code, data)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        await served.models.ListLlms(models_pb2.ListLlmsRequest(), timeout=HANG)
        assert [llm.running for llm in served.registry] == [0, 0]
        assert served.scripted().released == served.scripted().answered
    print(dict(ended))
    for method in METHODS:
        assert ended[method, "INVALID_ARGUMENT"] > 0
    for method in ("Generate", "CountTokens", "SetConfig"):
        assert ended[method, "OK"] > 10


def make(name: str, chance: random.Random) -> tuple[str, bytes]:
    message = filled(METHODS[name][1], chance)
    if chance.random() < 0.4:
        # Otherwise hardly any would come through all checks.
        match message:
            case pb.GenerateRequest():
                message = pb.GenerateRequest(prompt="hello", provider_options=message.provider_options)
                message.provider_options.fields.pop("strange", None)
            case pb.CountTokensRequest():
                message.llm = "echo"
                message.ClearField("model")
            case config_pb2.SetConfigRequest():
                message.llm = "other"
                message.etag = ""
                message.config.Clear()
    if name == "ClearCache":
        message.llm = chance.choice(["echo", "other", "nobody"])
    return name, mutated(message.SerializeToString(), chance)


async def outcome(served: Serving, method: str, data: bytes) -> str:
    call = served.channel.unary_unary(f"/abstractllm_api.v1.{METHODS[method][0]}/{method}")
    try:
        await call(data, timeout=HANG)
    except aio.AioRpcError as error:
        refusal = failure_of(error)
        assert len(refusal.infos) == 1, (refusal, data)
        return refusal.code.name
    return "OK"
