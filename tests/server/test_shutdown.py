"""Stopping: new calls are sent elsewhere, running ones end well within the grace or are told why not."""

import asyncio
from typing import Any

import pytest

from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.support import HANG, Failure, Serving, collect, failure, request, serving
from tests.waiting import until

ENDLESS = [{"text": "first"}, {"delay": 3000}, {"text": "never"}]


def is_told_to_go_elsewhere(error: Failure) -> bool:
    return (error.code.name, error.reason, error.retry_delays, error.pushbacks) == (
        "UNAVAILABLE",
        "SHUTTING_DOWN",
        [1.0],
        ["1000"],
    )


async def test_new_calls_are_refused_while_running_ones_end_well() -> None:
    async with serving() as served:
        stream = asyncio.create_task(
            collect(served.generation.StreamGenerate(request(script=[{"text": "a"}, {"delay": 0.5}, {"text": " b"}])))
        )
        unary = asyncio.create_task(_generate(served, request(script=[{"delay": 0.5}, {"text": "whole"}])))
        await until(lambda: len(served.scripted().requests) == 2)
        stopping = asyncio.create_task(served.server.stop(HANG))
        await asyncio.sleep(0)

        assert is_told_to_go_elsewhere(await failure(served.generation.Generate(request())))
        assert is_told_to_go_elsewhere(await failure(collect(served.generation.StreamGenerate(request()))))
        assert is_told_to_go_elsewhere(await failure(served.generation.CountTokens(pb.CountTokensRequest(prompt="x"))))

        assert "".join(event.text_delta.text for event in await stream) == "a b"
        assert (await unary).text == "whole"
        await asyncio.wait_for(stopping, HANG)
        assert served.scripted().released == len(served.scripted().requests) == 2


async def _generate(served: Serving, message: pb.GenerateRequest) -> pb.GenerateResponse:
    return await served.generation.Generate(message)


async def test_calls_beyond_the_grace_are_told_to_go_elsewhere() -> None:
    async with serving() as served:
        calls = [asyncio.create_task(_streamed(served, ENDLESS)) for _ in range(10)]
        calls += [asyncio.create_task(failure(_generate(served, request(script=ENDLESS)))) for _ in range(10)]
        await until(lambda: len(served.scripted().requests) == 20)
        await asyncio.wait_for(served.server.stop(0.2), HANG)
        for error in await asyncio.gather(*calls):
            assert is_told_to_go_elsewhere(error)
        assert served.scripted().released == 20


async def _streamed(served: Serving, script: list[dict[str, Any]]) -> Failure:
    return await failure(collect(served.generation.StreamGenerate(request(script=script))))


async def test_streams_that_pour_out_are_told_too() -> None:
    """They are error sending, not waiting for their provider."""
    async with serving() as served:
        pouring = "x " * 20_000
        calls = [
            asyncio.create_task(failure(collect(served.generation.StreamGenerate(request(pouring))))) for _ in range(8)
        ]
        await until(lambda: len(served.scripted().requests) == 8)
        await asyncio.wait_for(served.server.stop(0.1), HANG)
        for error in await asyncio.gather(*calls):
            assert is_told_to_go_elsewhere(error)


async def test_reader_that_stopped_reading_does_not_hold_up_the_stop() -> None:
    async with serving() as served:
        stream = served.generation.StreamGenerate(request(f"{'x' * 1000} " * 10_000))
        await stream.read()
        await asyncio.wait_for(served.server.stop(0.1), HANG)
        assert served.registry[""].running == 0


async def test_loading_is_given_up_and_its_callers_are_told() -> None:
    slow = ScriptedProvider({"load_delay": 3000})
    async with serving({"slow": slow}) as served:
        call = asyncio.create_task(failure(_generate(served, request())))
        await until(lambda: slow.running == 1)
        await asyncio.wait_for(served.server.stop(0.1), HANG)
        assert is_told_to_go_elsewhere(await call)
        await until(lambda: slow.state[0] == "unloaded")


class Closing(ScriptedProvider):
    closed = False

    async def close_async(self) -> None:
        self.closed = True
        raise OSError("cannot close")


async def test_every_llm_is_closed_even_if_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    llms = {"a": Closing(), "b": Closing()}
    async with serving(llms) as served:
        await served.works()
    assert (llms["a"].closed, llms["b"].closed) == (True, True)
    assert "cannot close" in caplog.text


async def test_server_can_be_stopped_twice() -> None:
    async with serving() as served:
        await served.server.stop(0)
