"""A local model's process that is killed: who is told what, and what is left."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2

from abstractllm.testing import ScriptedProvider
from tests.server.local import PATIENCE, Local, ask, local
from tests.server.support import Failure, collect, failure, failure_of, request
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    beside = {"echo": ScriptedProvider()}
    async with local(tmp_path_factory.mktemp("model"), beside, window=100_000) as running:
        yield running


async def read_to_failure(stream: aio.UnaryStreamCall[Any, Any]) -> tuple[int, Failure]:
    """The number of pieces of text that came, and the error of the stream."""
    pieces = 0
    try:
        async for event in stream:
            pieces += event.HasField("text_delta")
    except aio.AioRpcError as error:
        return pieces, failure_of(error)
    raise AssertionError("the stream ended well")


async def test_killed_engine_is_told_to_its_callers_alone_and_serves_again_by_itself(served: Local) -> None:
    pid = served.llm.engine_pid
    assert pid is not None
    words = "one two three four five " * 10
    others = [
        asyncio.create_task(collect(served.generation.StreamGenerate(request(words, llm="echo", delay=0.02))))
        for _ in range(5)
    ]
    streams = [asyncio.create_task(read_to_failure(served.generation.StreamGenerate(ask()))) for _ in range(50)]
    unary = asyncio.create_task(failure(served.generation.Generate(ask())))
    await until(lambda: served.counters.running == 51 and served.counters.generated_tokens > 100)
    os.kill(pid, signal.SIGKILL)
    outcomes = await asyncio.wait_for(asyncio.gather(*streams), PATIENCE)
    for end in [*(end for _, end in outcomes), await unary]:
        assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_CRASHED")
        assert end.metadata["llm"] == "local"
        assert "signal 9" in end.message
        (delay,), (pushback,) = end.retry_delays, end.pushbacks
        assert delay >= 1
        assert int(pushback) >= 1000
    for pieces, end in outcomes:
        assert int(end.metadata.get("output_tokens", 0)) >= pieces
    assert sum(pieces for pieces, _ in outcomes) > 0
    for events in await asyncio.gather(*others):
        assert "".join(event.text_delta.text for event in events) == words
    await served.comes_to_rest()
    check = health_pb2.HealthCheckRequest(service="llm/local")
    assert (await served.health.Check(check)).status == health_pb2.HealthCheckResponse.SERVING
    assert served.llm.engine_pid != pid


async def test_engine_that_is_killed_again_while_it_starts_again_is_no_model_that_cannot_be_loaded(
    served: Local,
) -> None:
    await served.comes_to_rest()
    first = served.llm.engine_pid
    assert first is not None
    running = asyncio.create_task(failure(served.generation.Generate(ask())))
    await until(lambda: served.counters.running == 1)
    os.kill(first, signal.SIGKILL)
    assert (await running).reason == "ENGINE_CRASHED"
    await until(lambda: served.llm.engine_pid not in (None, first))
    waiting = asyncio.create_task(collect(served.generation.StreamGenerate(ask(max_tokens=3))))
    await asyncio.sleep(0.1)  # it waits for the model, which takes seconds to load
    second = served.llm.engine_pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    events = await asyncio.wait_for(waiting, PATIENCE)
    assert events[-1].finished.usage.output_tokens == 3
