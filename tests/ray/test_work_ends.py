"""Whoever leaves, or is too late, ends the work in the replica: by the counters of its engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from abstractllm.providers.ray import RayProvider
from abstractllm_api.v1 import generation_pb2 as pb
from tests.ray.replicas import ENDLESS, demo, generated, reports, running, until_reports
from tests.server.support import Serving, collect, failure_of, serving

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("ray_address")]
TOKENS = 1900


@pytest.fixture
async def server() -> AsyncIterator[tuple[Serving, RayProvider]]:
    llm = demo()
    async with serving({"local": llm}) as server:
        await llm.load()
        await until_reports(llm, lambda told: running(told) == 0)
        yield server, llm


def endless() -> pb.GenerateRequest:
    """A request for an answer of many tokens, which takes seconds."""
    return pb.GenerateRequest(
        prompt="Count from 1 to 20.",
        parameters=pb.GenerationParameters(temperature=0, max_tokens=TOKENS, logit_bias=ENDLESS),
    )


async def works(llm: RayProvider, before: int) -> None:
    """Waits until the engine is in the midst of the answer."""
    await until_reports(llm, lambda told: running(told) == 1 and generated(told) > before + 5)


async def rests(llm: RayProvider, before: int) -> None:
    """Checks that the engine has stopped, long before the answer's end."""
    last = generated(await until_reports(llm, lambda told: running(told) == 0))
    # The step that it is in may still be counted.
    while (now := generated(await reports(llm))) != last:
        last = now
        await asyncio.sleep(0.3)
    assert last - before < TOKENS - 100


async def test_a_stream_that_is_left(server: tuple[Serving, RayProvider]) -> None:
    serving, llm = server
    before = generated(await reports(llm))
    stream = serving.generation.StreamGenerate(endless())
    await stream.read()
    await works(llm, before)
    stream.cancel()
    await rests(llm, before)


async def test_a_whole_answer_that_is_left(server: tuple[Serving, RayProvider]) -> None:
    serving, llm = server
    before = generated(await reports(llm))
    call = serving.generation.Generate(endless())
    waiting = asyncio.ensure_future(_wait(call))
    await works(llm, before)
    call.cancel()
    await waiting
    await rests(llm, before)


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_a_deadline(server: tuple[Serving, RayProvider], method: str) -> None:
    serving, llm = server
    before = generated(await reports(llm))
    call = getattr(serving.generation, method)(endless(), timeout=0.6)
    with pytest.raises(aio.AioRpcError) as caught:
        await (call if method == "Generate" else collect(call))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await rests(llm, before)


async def test_a_deadline_of_the_configuration_is_the_replica_s_too(ray_address: str) -> None:
    llm = demo(timeout=0.6)
    async with serving({"local": llm}) as server:
        await llm.load()
        before = generated(await reports(llm))
        with pytest.raises(aio.AioRpcError) as caught:
            await server.generation.Generate(endless())
        assert failure_of(caught.value).reason == "TIMEOUT"
        await rests(llm, before)
        # The file of this server says so, and it has deployed it.
        await llm.set_config_async(timeout=None)


async def _wait(call: aio.UnaryUnaryCall) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call
