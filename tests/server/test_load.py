"""Many calls at once on a real engine: none is lost, none is left, and the others are served meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc
from tests.server.local import PATIENCE, Local, ask, local
from tests.server.support import collect, failure, failure_of
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUEUE = 600
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Channels of one process to one address share a connection otherwise, and would be one caller."""
SLOTS = 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    async with local(tmp_path_factory.mktemp("model"), max_queue=QUEUE, max_batch_size=SLOTS) as running:
        yield running


async def test_of_500_streams_with_a_tenth_cancelled_midway_nothing_is_left(served: Local) -> None:
    before = served.counters
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(aio.insecure_channel(served.server.address, OWN_CONNECTION))
            for _ in range(5)
        ]
        stubs = [generation_pb2_grpc.GenerationServiceStub(channel) for channel in channels]

        async def use(index: int) -> str:
            stream = stubs[index % 5].StreamGenerate(ask(f"hello {index}", max_tokens=24))
            events = [await stream.read() for _ in range(3)]
            if index % 10 == 0:
                stream.cancel()
                return "cancelled"
            while (event := await stream.read()) is not aio.EOF:
                events.append(event)
            kinds = [event.WhichOneof("event") for event in events]
            assert (kinds[0], kinds[-1], kinds.count("finished")) == ("started", "finished", 1)
            assert events[-1].finished.usage.output_tokens == 24
            return pb.FinishReason.Name(events[-1].finished.finish_reason)

        ends = await asyncio.wait_for(asyncio.gather(*(use(index) for index in range(500))), PATIENCE)
    assert Counter(ends) == {"cancelled": 50, "FINISH_REASON_MAX_TOKENS": 450}
    await served.comes_to_rest()
    assert served.counters.accepted - before.accepted == 501
    assert 450 * 24 <= served.counters.generated_tokens - before.generated_tokens <= 500 * 24 + 3


async def test_burst_ends_well_or_as_overloaded_with_advice_when_to_come_again(served: Local) -> None:
    overloaded = asyncio.Event()

    async def occupy(index: int) -> None:
        # Holds a slot until the queue was full, however fast the machine is.
        stream = served.generation.StreamGenerate(ask(f"long {index}", max_tokens=4000))
        await stream.read()
        await overloaded.wait()
        stream.cancel()

    async def call(index: int) -> str:
        try:
            answer = await served.generation.Generate(ask(f"hello {index}", max_tokens=1))
            assert answer.usage.output_tokens == 1
            return "OK"
        except aio.AioRpcError as error:
            refusal = failure_of(error)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), refusal
            assert "max_queue is 600" in refusal.message
            (delay,) = refusal.retry_delays
            (pushback,) = refusal.pushbacks
            assert 0.5 <= delay <= 60
            assert abs(int(pushback) / 1000 - delay) < 0.01
            overloaded.set()
            return "overloaded"

    occupied = [asyncio.create_task(occupy(index)) for index in range(SLOTS)]
    await until(lambda: served.counters.running == SLOTS)
    ends = Counter(await asyncio.wait_for(asyncio.gather(*(call(index) for index in range(2000))), PATIENCE))
    await asyncio.gather(*occupied)
    assert ends["OK"] >= QUEUE
    assert ends["overloaded"] > 0
    await served.comes_to_rest()


async def test_health_is_told_with_all_slots_busy_and_the_queue_full(served: Local) -> None:
    ahead = max(4, SLOTS // 8)
    streams = [served.generation.StreamGenerate(ask(max_tokens=2000)) for _ in range(SLOTS + ahead + QUEUE)]
    await until(lambda: served.counters.running == SLOTS and served.counters.queued == QUEUE + ahead)
    for service in ("", "liveness", "llm/local"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await served.health.Check(request, timeout=PATIENCE)).status == health_pb2.HealthCheckResponse.SERVING
    assert (await failure(served.generation.Generate(ask()))).reason == "OVERLOADED"
    for stream in streams:
        stream.cancel()
    await served.comes_to_rest()


async def test_deadline_ends_the_generation_with_the_call(served: Local) -> None:
    for method in (served.generation.Generate, served.generation.StreamGenerate):
        before = served.counters
        call = method(ask(max_tokens=4000), timeout=0.5)
        error = await failure(call if isinstance(call, aio.UnaryUnaryCall) else collect(call))
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await served.comes_to_rest()
        assert 0 < served.counters.generated_tokens - before.generated_tokens < 4000
    await served.llm.set_config_async(timeout=0.5)
    try:
        error = await failure(served.generation.Generate(ask(max_tokens=4000)))
        assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT")
        assert error.retry_delays == []
    finally:
        await served.llm.set_config_async(timeout=None)
    await served.comes_to_rest()


async def test_caller_with_500_requests_does_not_hold_up_one_with_one(served: Local) -> None:
    order: list[str] = []

    async def call(stub: generation_pb2_grpc.GenerationServiceStub, name: str) -> None:
        await stub.Generate(ask(max_tokens=4))
        order.append(name)

    async with aio.insecure_channel(served.server.address, OWN_CONNECTION) as other:
        before = served.counters.accepted
        many = [asyncio.create_task(call(served.generation, "many")) for _ in range(500)]
        await until(lambda: served.counters.accepted == before + 500)
        overtaken = len(order)
        one = asyncio.create_task(call(generation_pb2_grpc.GenerationServiceStub(other), "one"))
        await asyncio.wait_for(asyncio.gather(one, *many), PATIENCE)
    # Those that the engine had already go first, and a batch may end before its first caller is told.
    assert order.index("one") - overtaken <= 5 * SLOTS
    await served.comes_to_rest()


async def test_full_queue_of_one_caller_has_a_place_for_another(served: Local) -> None:
    ahead = max(4, SLOTS // 8)
    async with aio.insecure_channel(served.server.address, OWN_CONNECTION) as other:
        streams = [served.generation.StreamGenerate(ask(max_tokens=2000)) for _ in range(SLOTS + ahead + QUEUE)]
        await until(lambda: served.counters.running == SLOTS and served.counters.queued == QUEUE + ahead)
        late = generation_pb2_grpc.GenerationServiceStub(other).StreamGenerate(ask(max_tokens=5))
        displaced = await asyncio.wait_for(anext(iter_failures(streams)), PATIENCE)
        assert displaced.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for stream in streams:
            stream.cancel()
        events = [event async for event in late]
        assert events[-1].finished.usage.output_tokens == 5
    await served.comes_to_rest()


async def iter_failures(streams: list[aio.UnaryStreamCall]) -> AsyncIterator[aio.AioRpcError]:
    """The streams that fail, as they do."""

    async def end(stream: aio.UnaryStreamCall) -> aio.AioRpcError:
        try:
            async for _ in stream:
                pass
        except aio.AioRpcError as error:
            return error
        raise AssertionError("a stream ended well")

    for ended in asyncio.as_completed([end(stream) for stream in streams]):
        yield await ended
