"""Requests of all kinds at once on a real engine with little room: each gets what it would have got alone."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.local import ENDLESS, PATIENCE, Local, local

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ab", "cd"]}, "size": {"type": "integer"}, "good": {"type": "boolean"}},
    "required": ["name", "size", "good"],
    "additionalProperties": False,
}
ROOM = 1 << 20
"""Bytes of keys and values: 32 answers do not fit side by side, and some are evicted."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    folder = tmp_path_factory.mktemp("model")
    async with local(folder, window=1024, max_batch_size=32, kv_cache_bytes=ROOM, dtype="float32") as running:
        yield running


def wishes() -> list[pb.GenerateRequest]:
    """Three requests of each kind."""
    schema = pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(name="thing", schema_json=json.dumps(SCHEMA)))
    expression = pb.ResponseFormat(regex="(yes|no|perhaps)( (yes|no|perhaps)){5,40}")
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 300, "logit_bias": ENDLESS},
        {"max_tokens": 300, "logit_bias": ENDLESS, "temperature": 1.0},
        {"max_tokens": 150, "logit_bias": ENDLESS, "temperature": 0.8, "top_k": 20, "top_p": 0.9},
        {"max_tokens": 100, "temperature": 1.2, "min_p": 0.05, "top_logprobs": 5},
        {"max_tokens": 100, "top_logprobs": 3},
        {"max_tokens": 150, "temperature": 1.0, "stop": ["e", "th", "qu"]},
        {"max_tokens": 150, "temperature": 0.7, "repetition_penalty": 1.3, "presence_penalty": 0.5},
        {"max_tokens": 150, "frequency_penalty": 0.8},
    ]
    requests = []
    for index in range(3):
        for place, kind in enumerate(kinds):
            # Each third prompt is longer than what is taken in one step.
            prompt = f"hello number {index} of kind {place} " * (1 if place % 3 else 30)
            parameters = pb.GenerationParameters(**{"seed": 100 * index + place} | kind)
            requests.append(pb.GenerateRequest(prompt=prompt, parameters=parameters))
        for format in (schema, expression):
            parameters = pb.GenerationParameters(max_tokens=200, temperature=1.0, seed=index)
            requests.append(pb.GenerateRequest(prompt=f"thing {index}", response_format=format, parameters=parameters))
    return requests


Answer = tuple[str, int, str, int, list[pb.TokenLogprob]]


async def alone(served: Local, request: pb.GenerateRequest) -> Answer:
    answer = await served.generation.Generate(request, timeout=PATIENCE)
    return answer.text, answer.finish_reason, answer.stop_sequence, answer.usage.output_tokens, list(answer.logprobs)


async def in_pieces(served: Local, request: pb.GenerateRequest) -> Answer:
    events = [event async for event in served.generation.StreamGenerate(request)]
    last = events[-1].finished
    text = "".join(event.text_delta.text for event in events)
    logprobs = [entry for event in events for entry in event.text_delta.logprobs]
    return text, last.finish_reason, last.stop_sequence, last.usage.output_tokens, logprobs


def assert_same(answer: Answer, wanted: Answer) -> None:
    """The same tokens; their probabilities up to the rounding of sums that are added up in another order."""
    assert answer[:4] == wanted[:4]
    assert [token.token_id for token in answer[4]] == [token.token_id for token in wanted[4]]
    for one, other in zip(answer[4], wanted[4], strict=True):
        values = [one.logprob, *(top.logprob for top in one.top)]
        assert values == pytest.approx([other.logprob, *(top.logprob for top in other.top)], abs=1e-4)


async def test_each_gets_what_it_would_have_got_alone(served: Local) -> None:
    requests = wishes()
    wanted = [await alone(served, request) for request in requests]
    assert served.counters.evictions == 0
    chance = random.Random(7)

    async def whole(index: int) -> None:
        await asyncio.sleep(chance.random() * 0.5)
        assert_same(await alone(served, requests[index]), wanted[index])

    async def pieces(index: int) -> None:
        await asyncio.sleep(chance.random() * 0.5)
        assert_same(await in_pieces(served, requests[index]), wanted[index])

    async def cancelled(index: int) -> None:
        await asyncio.sleep(chance.random() * 0.5)
        stream: aio.UnaryStreamCall[Any, Any] = served.generation.StreamGenerate(requests[index])
        for _ in range(chance.randrange(30)):
            if await stream.read() is aio.EOF:
                return
        stream.cancel()

    calls = [use(index) for index in range(len(requests)) for use in (whole, pieces, cancelled)]
    chance.shuffle(calls)
    await asyncio.wait_for(asyncio.gather(*calls), PATIENCE)
    await served.comes_to_rest()
    assert served.counters.evictions > 0
    for request, (text, reason, *_) in zip(requests, wanted, strict=True):
        if request.response_format.HasField("json_schema") and reason == pb.FINISH_REASON_STOP:
            assert set(json.loads(text)) == {"name", "size", "good"}
