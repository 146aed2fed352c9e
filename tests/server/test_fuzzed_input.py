"""Mutated input of strangers and of files: it is read, or refused with a reason, by every method and every reader.

`python -m tests.fuzz` does the same for longer, guided by coverage.
"""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abstractllm.testing import ScriptedProvider
from tests.fuzz.corpus import CORPUS, mutated
from tests.fuzz.targets import MESSAGES, TARGETS
from tests.server.support import HANG, Serving, failure_of, serving
from tests.server.test_auth import METHODS

INPUTS = {"requests": 6_000, "configuration": 100, "tokens": 500, "certificates": 3_000, "authentication": 1_000}


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_read_or_refused(name: str) -> None:
    chance, outcomes = random.Random(7), Counter[str]()
    for data in CORPUS[name]:
        outcomes[TARGETS[name](data)] += 1
    for _ in range(INPUTS[name]):
        outcomes[TARGETS[name](mutated(chance.choice(CORPUS[name]), chance))] += 1
    print(dict(outcomes))
    assert len(outcomes) > 1


TEXTS = st.text(max_size=40) | st.sampled_from(
    ["echo", "script", "{}", '{"type": "object"}', "a" * 300, "parameters.stop"]
)
NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 2.5])


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Any value of a field."""
    match field.type:
        case field.TYPE_MESSAGE:
            return messages(field.message_type._concrete_class, depth + 1)
        case field.TYPE_STRING:
            return TEXTS
        case field.TYPE_BYTES:
            return st.binary(max_size=20)
        case field.TYPE_BOOL:
            return st.booleans()
        case field.TYPE_ENUM:
            return st.integers(-1, 9)
        case field.TYPE_DOUBLE | field.TYPE_FLOAT:
            return NUMBERS
        case _:
            bits = 31 if field.type in (field.TYPE_INT32, field.TYPE_SINT32) else 63
            return st.integers(-(2**bits), 2**bits - 1) | st.integers(0, 30)


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], depth: int = 0) -> Message:
    """Any message of a type, with some of its fields set."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if depth > 5 or not draw(st.booleans()):
            continue
        content = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            for key in draw(st.lists(values(entry["key"], depth), max_size=3)):
                value = draw(values(entry["value"], depth))
                content[key].CopyFrom(value) if isinstance(value, Message) else content.update({key: value})
        elif field.is_repeated:
            content.extend(draw(st.lists(values(field, depth), max_size=3)))
        elif field.message_type is not None:
            content.CopyFrom(draw(values(field, depth)))
        else:
            setattr(message, field.name, draw(values(field, depth)))
    return message


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_message_of_any_method_is_read_or_refused(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(MESSAGES) - 1))
    message = data.draw(messages(list(MESSAGES.values())[number]))
    TARGETS["requests"](bytes([number]) + message.SerializeToString())


ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "ABORTED", "DEADLINE_EXCEEDED"}
REFLECTION = tuple(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha"))
HEALTH = tuple(f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch"))
PATHS: dict[str, type[Message]] = {
    **{path: MESSAGES[method.full_name] for path, method in METHODS.items()},
    **dict.fromkeys(HEALTH, health_pb2.HealthCheckRequest),
    **dict.fromkeys(REFLECTION, reflection_pb2.ServerReflectionRequest),
}


async def status(served: Serving, path: str, data: bytes) -> str:
    """The code that a call with these bytes ends with; beside it, what is wrong with the refusal."""
    call = served.channel.stream_stream(path)(iter([data]), timeout=0.5 if path == HEALTH[2] else HANG)
    try:
        async for _ in call:
            pass
    except aio.AioRpcError as error:
        code = error.code().name
        is_ours = not path.startswith("/grpc.") and code != "DEADLINE_EXCEEDED"
        return f"{code} without a reason" if is_ours and len(failure_of(error).infos) != 1 else code
    return "OK"


async def test_mutated_bytes_end_every_method_well_or_in_a_refusal() -> None:
    chance, codes = random.Random(11), Counter[tuple[str, str]]()
    llms = {"echo": ScriptedProvider({"model": "script", "models": ["a"]}), "other": ScriptedProvider()}
    async with serving(llms) as served:
        work = []
        for path, kind in PATHS.items():
            names = [name for name, message in MESSAGES.items() if message is kind]
            seeds = [data[1:] for data in CORPUS["requests"] if list(MESSAGES)[data[0]] in names] or [b""]
            count = 8 if path == HEALTH[2] else 40
            work += [(path, mutated(chance.choice([*seeds, chance.randbytes(12)]), chance)) for _ in range(count)]

        async def worker() -> None:
            while work:
                path, data = work.pop()
                code = await status(served, path, data)
                assert code in ALLOWED, (path, code, data)
                codes[path, code] += 1

        await asyncio.gather(*(worker() for _ in range(16)))
        await served.works()
    assert {path for path, code in codes if code == "INVALID_ARGUMENT"} == PATHS.keys()
