"""Whoever leaves, whenever: the work behind the call ends, and nothing is left running."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from grpc import aio

from abstractllm.config import LLMConfig
from abstractllm.requests import GenerationRequest
from abstractllm.testing import ScriptedProvider
from abstractllm.types import Event
from tests.server.support import HANG, Serving, collect, failure, request, serving
from tests.waiting import until

LONG = [{"text": "first"}, {"delay": 3000}, {"text": "never"}]


class Watched(ScriptedProvider):
    """Counts the generators that were begun and those that were closed."""

    begun = closed = 0

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        self.begun += 1
        try:
            async for event in super().events(request, config):
                yield event
        finally:
            self.closed += 1


async def settled(served: Serving, begun: int = 1) -> None:
    """Waits until every request that was begun has ended; shows that a next one is answered."""
    llm = served.registry[""]
    assert isinstance(llm, Watched)
    await until(lambda: llm.closed == begun and llm.running == 0)
    assert llm.begun == begun
    assert llm.released == llm.answered
    await until(lambda: served.server.running == 0)
    await served.works()


@pytest.fixture
def watched() -> Watched:
    return Watched()


async def test_stream_cancelled_midway_closes_the_providers_generator(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        stream = served.generation.StreamGenerate(request(script=LONG))
        kinds = [(await stream.read()).WhichOneof("event") for _ in range(2)]
        assert kinds == ["started", "text_delta"]
        stream.cancel()
        await settled(served)


async def test_stream_cancelled_before_its_first_event(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        stream = served.generation.StreamGenerate(request(script=[{"delay": 3000}]))
        await until(lambda: watched.begun == 1)
        stream.cancel()
        await settled(served)


async def test_stream_cancelled_at_once_leaves_nothing(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        for _ in range(50):
            served.generation.StreamGenerate(request(script=LONG)).cancel()
        await asyncio.sleep(0.05)
        await until(lambda: served.server.running == 0 and watched.running == 0)
        assert watched.begun == watched.closed
        await served.works()


async def test_unary_call_cancelled(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        call = served.generation.Generate(request(script=LONG))
        await until(lambda: len(watched.requests) == 1)
        call.cancel()
        await settled(served)


async def test_cancelled_while_the_model_loads() -> None:
    llm = Watched({"load_delay": 3000})
    async with serving({"echo": llm}, preload=()) as served:
        stream = served.generation.StreamGenerate(request())
        unary = served.generation.Generate(request())
        await until(lambda: llm.begun == 2)
        assert llm.state[0] == "loading"
        stream.cancel()
        unary.cancel()
        await until(lambda: llm.closed == 2 and llm.running == 0)
        assert llm.requests == []
        # Nobody loads it any more, and it says so.
        await until(lambda: llm.state[0] == "unloaded")


async def test_stream_cancelled_while_it_pours_out(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        for count in range(1, 21):
            stream = served.generation.StreamGenerate(request(reply="word " * 2_000))
            for _ in range(count * 5):
                await stream.read()
            stream.cancel()
        await settled(served, begun=20)


async def test_reader_that_stops_reading_holds_up_nobody_and_leaves_nothing(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        stream = served.generation.StreamGenerate(request(f"{'x' * 1000} " * 3_000))
        await stream.read()
        await served.works()
        stream.cancel()
        await settled(served, begun=2)


async def test_connection_closed_midway(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        async with aio.insecure_channel(served.server.address) as other:
            stub = type(served.generation)(other)
            streams = [stub.StreamGenerate(request(script=LONG)) for _ in range(5)]
            for stream in streams:
                await stream.read()
        await settled(served, begun=5)


async def test_callers_deadline_ends_the_work(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        unary = await failure(served.generation.Generate(request(script=LONG), timeout=0.3))
        stream = await failure(collect(served.generation.StreamGenerate(request(script=LONG), timeout=0.3)))
        assert {error.code.name for error in (unary, stream)} == {"DEADLINE_EXCEEDED"}
        await settled(served, begun=2)


async def test_configured_timeout_ends_the_work_with_a_reason() -> None:
    llm = Watched({"timeout": 0.3})
    async with serving({"echo": llm}) as served:
        unary = await failure(served.generation.Generate(request(script=LONG)))
        stream = await failure(collect(served.generation.StreamGenerate(request(script=LONG))))
        for error in (unary, stream):
            assert (error.code.name, error.reason) == ("DEADLINE_EXCEEDED", "TIMEOUT")
            assert (error.retry_delays, error.pushbacks) == ([], [])
        await settled(served, begun=2)


async def test_configured_timeout_bounds_the_loading_too() -> None:
    llm = ScriptedProvider({"timeout": 0.3, "load_delay": 3000})
    async with serving({"echo": llm}, preload=()) as served:
        error = await failure(served.generation.Generate(request()))
        assert (error.code.name, error.reason) == ("DEADLINE_EXCEEDED", "TIMEOUT")


async def test_hundred_streams_of_which_each_second_is_cancelled(watched: Watched) -> None:
    async with serving({"echo": watched}) as served:
        streams = [served.generation.StreamGenerate(request(reply="a b c d e", delay=0.02)) for _ in range(100)]

        async def use(index: int) -> str:
            read = [await streams[index].read()]
            if index % 2:
                streams[index].cancel()
                return ""
            while (event := await streams[index].read()) is not aio.EOF:
                read.append(event)
            return "".join(event.text_delta.text for event in read)

        texts = await asyncio.wait_for(asyncio.gather(*(use(index) for index in range(100))), HANG)
        assert texts == ["a b c d e", ""] * 50
        await settled(served, begun=100)
