"""The guard around every call: what waits for its caller is bounded, ended in time, and never anybody else's harm."""

import asyncio
import gc
import itertools
from collections import Counter
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from abstractllm.errors import OverloadedError, RateLimitedError
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.transport import limits, reading_turns, waiting_calls
from abstractllm_server.transport.open_calls import OpenCalls
from tests.reliability.http2 import RawConnection, header_block, message
from tests.server.support import HANG, Serving, collect, failure, failure_of, request, serving
from tests.waiting import until

GENERATE = "/abstractllm_api.v1.GenerationService/Generate"
COUNT = "/abstractllm_api.v1.GenerationService/CountTokens"
STREAM = "/abstractllm_api.v1.GenerationService/StreamGenerate"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ALL_KINDS = (GENERATE, STREAM, CHECK, WATCH, REFLECTION)
OVERLOADED, TIMEOUT = str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]), str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])


@pytest.mark.parametrize("method", ALL_KINDS)
async def test_call_whose_message_does_not_come_is_ended_in_time(method: str) -> None:
    async with serving(read_timeout=0.3) as served, await RawConnection.open(served.server.address) as connection:
        stream = connection.start(header_block(method))
        await connection.until_ended(1, HANG)
        assert connection.ended[stream]["grpc-status"] == TIMEOUT
        assert "no message arrived for 0.3 seconds" in connection.ended[stream]["grpc-message"]
        await served.works()


@pytest.mark.parametrize("method", [GENERATE, CHECK])
async def test_message_whose_last_byte_does_not_come_is_let_go_of(method: str) -> None:
    async with serving(read_timeout=0.5) as served, await RawConnection.open(served.server.address) as connection:
        stream = connection.start(header_block(method))
        await connection.send(stream, message(bytes(3_000_000))[:-1], ends=False)
        await connection.until_ended(1, HANG)
        assert connection.ended[stream]["grpc-status"] == TIMEOUT
        await served.works()


async def test_idle_reflection_stream_ends_too(served: Serving) -> None:
    async with serving(read_timeout=0.3) as patient:
        call = patient.channel.stream_stream(
            REFLECTION,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await call.read()).list_services_response.service
        error = await failure(call.read())
        assert (error.code.name, error.reason) == ("DEADLINE_EXCEEDED", "TIMEOUT")


async def test_of_headers_without_messages_the_oldest_of_the_busiest_connection_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting_calls, "_PENDING", 12)
    monkeypatch.setattr(waiting_calls, "_PENDING_PER_SOURCE", 8)
    async with serving() as served:
        address = served.server.address
        async with await RawConnection.open(address) as good, await RawConnection.open(address) as flood:
            first = good.start(header_block(GENERATE))
            await until(lambda: served.server._guard._waiting.pending == 1)
            streams = [flood.start(header_block(GENERATE)) for _ in range(60)]
            await flood.until_ended(52, HANG)
            assert {flood.ended[stream]["grpc-status"] for stream in streams[:52]} == {OVERLOADED}
            assert served.server._guard._waiting.pending == 9
            async with await RawConnection.open(address) as second:
                for _ in range(6):
                    second.start(header_block(CHECK))
                await flood.until_ended(55, HANG)
                assert served.server._guard._waiting.pending == 12
                assert not second.ended
            # The connection with few is served, whenever its message comes.
            await good.send(first, message(request("hello").SerializeToString()))
            await good.until_ended(1, HANG)
            assert good.ended[first]["grpc-status"] == "0"
            await served.works()


async def test_watchers_are_bounded_and_the_flood_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_calls, "_PROBES_PER_SOURCE", 10)
    async with serving() as served, await RawConnection.open(served.server.address) as flood:
        watch = served.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        for _ in range(50):
            flood.unary(header_block(WATCH), b"")
        await flood.until_ended(40, HANG)
        await asyncio.sleep(0)
        assert len(flood.ended) == 40
        assert not watch.done()
        stopping = asyncio.create_task(served.server.stop(0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.wait_for(stopping, HANG)


@pytest.mark.parametrize(("patience", "ousted"), [(HANG, slice(3, 8)), (0.0, slice(5))], ids=["newest", "oldest"])
async def test_slow_messages_are_few_at_a_time_and_quick_ones_pass(
    patience: float, ousted: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have been slow for long give way to newer ones; the others do not, or none would ever arrive."""
    monkeypatch.setattr(reading_turns, "_PATIENCE", patience)
    monkeypatch.setattr(waiting_calls, "_TURNS", {"at_a_time": 2, "slow": 16, "slow_per_source": 3})
    async with serving() as served, await RawConnection.open(served.server.address) as slow:
        octets = message(bytes(300_000))[:-1]
        streams = [slow.start(header_block(GENERATE)) for _ in range(8)]
        sending = [asyncio.create_task(slow.send(stream, octets, ends=False)) for stream in streams]
        answers = await asyncio.gather(*(served.generation.Generate(request(str(index))) for index in range(40)))
        assert [answer.text for answer in answers] == [str(index) for index in range(40)]
        while len(slow.ended) < 5:
            await served.works()
        assert {stream: end["grpc-status"] for stream, end in slow.ended.items()} == dict.fromkeys(
            streams[ousted], OVERLOADED
        )
        for task in sending:
            task.cancel()


async def test_slow_messages_of_one_caller_wait_for_each_other_while_nobody_else_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a batch of long prompts over a slow line is."""
    monkeypatch.setattr(waiting_calls, "_TURNS", {"at_a_time": 2, "slow": 4, "slow_per_source": 3})
    octets = message(pb.CountTokensRequest(prompt="x" * 300_000).SerializeToString())
    async with serving() as served, await RawConnection.open(served.server.address) as slow:
        streams = [slow.start(header_block(COUNT)) for _ in range(8)]

        async def send(stream: int) -> None:
            await slow.send(stream, octets[:-1], ends=False)
            await asyncio.sleep(0.7)
            await slow.send(stream, octets[-1:])

        await asyncio.gather(*(send(stream) for stream in streams))
        await slow.until_ended(8, HANG)
        assert [slow.ended[stream]["grpc-status"] for stream in streams] == ["0"] * 8


async def test_those_who_need_no_credentials_have_few_messages_in_memory_and_others_their_turn() -> None:
    async with serving() as served:
        slow = [await RawConnection.open(served.server.address) for _ in range(5)]
        octets = message(bytes(1_000_000))[:-1]
        sending = [
            asyncio.create_task(connection.send(connection.start(header_block(CHECK)), octets, ends=False))
            for connection in slow
            for _ in range(10)
        ]
        try:
            # Each that was let through and not ended is held whole: four at a time, and four slow ones beside them.
            most = 0
            while sum(len(connection.ended) for connection in slow) < 20:
                answer = await served.health.Check(health_pb2.HealthCheckRequest(), timeout=HANG)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                ended = sum(len(connection.ended) for connection in slow)
                most = max(most, sum(task.done() for task in sending) - ended)
            assert 0 < most <= 9  # one may have ended, and its last frame be on its way
        finally:
            for task in sending:
                task.cancel()
            for connection in slow:
                await connection.close()


async def test_streams_that_nobody_reads_may_not_send_more_on_a_fast_connection() -> None:
    """Else each call that waits for its turn would hold megabytes."""
    async with serving() as served, await RawConnection.open(served.server.address) as fast:
        before = fast.stream_window
        for _ in range(8):
            stream = fast.start(header_block(GENERATE))
            await fast.send(stream, message(bytes(15 << 20)))
        await fast.until_ended(8, HANG)
        assert fast.stream_window <= before


@pytest.mark.parametrize("method", [GENERATE, STREAM])
async def test_answers_that_nobody_reads_end_and_are_freed(method: str) -> None:
    llm = ScriptedProvider({"reply": "x" * 300_000})
    async with serving({"echo": ScriptedProvider(), "long": llm}, write_timeout=0.5) as served:
        await served.works()
        async with await RawConnection.open(served.server.address, window=0) as deaf:
            for _ in range(30):
                deaf.unary(header_block(method), request(llm="long").SerializeToString())
            await until(lambda: served.server.running)
            await served.works()
            # grpc itself lets go of them, though the connection stays: else it would hold the answers for ever.
            await deaf.until_ended(30, HANG)
            assert len(deaf.ended) == 30 or deaf.is_closed
            await until(lambda: served.server.running == 0)
        await served.works()


async def test_nothing_is_left_of_streams_whose_first_message_nobody_reads() -> None:
    """grpc would keep a status that it does not take, since it sends the headers with the first message."""

    def left() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "CallbackWrapper" for thing in gc.get_objects())

    llm = ScriptedProvider({"reply": "x" * 300_000})
    async with serving({"echo": ScriptedProvider(), "long": llm}, write_timeout=0.5) as served:
        await served.works()
        before = left()
        async with await RawConnection.open(served.server.address, window=0) as deaf:
            for _ in range(60):
                deaf.unary(header_block(STREAM), request(llm="long").SerializeToString())
            await deaf.until_ended(60, HANG)
            await until(lambda: served.server.running == 0)
        await served.works()
        await until(lambda: left() < before + 20)


async def test_drain_ends_a_stream_with_its_status_after_the_message_that_is_being_read() -> None:
    llm = ScriptedProvider({"script": [{"text": "x" * 3_000_000}, {"delay": 3000}]})
    async with serving({"long": llm}) as served:
        stream = served.generation.StreamGenerate(request())
        await until(lambda: served.server._guard._waiting.writers)
        stopping = asyncio.create_task(served.server.stop(0.05))
        await until(lambda: all(call.error for call in served.server._guard._running))
        with pytest.raises(aio.AioRpcError) as caught:
            async for _ in stream:
                pass
        assert failure_of(caught.value).reason == "SHUTTING_DOWN"
        await asyncio.wait_for(stopping, HANG)


async def test_unread_call_that_came_last_loses_its_connection() -> None:
    """grpc refers to it until another call comes, so that it cannot be ended otherwise."""
    async with serving(write_timeout=0.3) as served:
        async with await RawConnection.open(served.server.address, window=0) as deaf:
            deaf.unary(header_block(GENERATE), request().SerializeToString())
            await until(lambda: deaf.is_closed)
        await served.works()


async def test_unread_bytes_are_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_calls, "_UNREAD_PER_SOURCE", 2_000_000)
    llm = ScriptedProvider({"reply": "x" * 300_000})
    async with serving({"echo": ScriptedProvider(), "long": llm}, write_timeout=HANG) as served:
        async with await RawConnection.open(served.server.address, window=0) as deaf:
            await served.works()
            for _ in range(10):
                deaf.unary(header_block(GENERATE), request(llm="long").SerializeToString())
            await until(lambda: len(deaf.ended) == 7, HANG)
            assert 0 < served.server._guard._waiting.unread_bytes <= 2_000_000
            assert served.server.running == 3
        await until(lambda: served.server.running == 0)
        assert served.server._guard._waiting.unread_bytes == 0


async def test_reader_that_comes_back_in_time_gets_everything() -> None:
    async with serving({"long": ScriptedProvider({"reply": "x" * 2_000_000})}) as served:
        call = served.generation.StreamGenerate(request())
        await call.read()
        await asyncio.sleep(0.5)
        size = 0
        while (event := await asyncio.wait_for(call.read(), HANG)) is not aio.EOF:
            size += len(event.text_delta.text)
        assert size == 2_000_000


async def test_burst_on_one_connection_is_answered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc's own protection refuses calls of a client that makes use of all that the server lets it have."""
    monkeypatch.setattr(limits, "_CONCURRENT_STREAMS", 32)
    async with serving() as served:

        async def call() -> str:
            try:
                await served.generation.CountTokens(pb.CountTokensRequest(prompt="x"))
            except aio.AioRpcError as error:
                return str(error.code())
            return "OK"

        ends = Counter(await asyncio.gather(*(call() for _ in range(1500))))
        assert ends == {"OK": 1500}


async def test_drain_waits_for_nobody_who_only_sent_headers() -> None:
    async with serving() as served, await RawConnection.open(served.server.address) as connection:
        streams = [connection.start(header_block(method)) for method in (GENERATE, STREAM)]
        await until(lambda: served.server._guard._waiting.pending == 2)
        await asyncio.wait_for(served.server.stop(10 * HANG), HANG)
        assert {connection.ended[stream]["grpc-status"] for stream in streams} == {"14"}


ENDLESS = [{"text": "one"}, {"text": " two"}, {"text": " three"}, {"delay": 3000}]


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_call_that_the_drain_ends_tells_its_tokens(method: str) -> None:
    async with serving() as served:
        call = getattr(served.generation, method)(request(script=ENDLESS))
        end = asyncio.create_task(failure(call if method == "Generate" else collect(call)))
        await until(lambda: served.server.running == 1)
        await asyncio.sleep(0.2)
        await asyncio.wait_for(served.server.stop(0.1), HANG)
        error = await end
        assert error.reason == "SHUTTING_DOWN"
        assert error.metadata["output_tokens"] == "3"


async def test_stream_whose_reader_stopped_tells_its_tokens() -> None:
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.lookahead_bytes", 65_535),
        ("grpc.http2.bdp_probe", 0),
    ]
    words = "x" * 50_000 + " "
    async with serving({"long": ScriptedProvider({"reply": words * 20})}, write_timeout=0.5) as served:
        async with aio.insecure_channel(served.server.address, options) as channel:
            call = type(served)(served.server, served.registry, channel).generation.StreamGenerate(request())
            await call.read()
            await until(lambda: served.registry[""].running == 0)
            try:
                while await call.read() is not aio.EOF:
                    pass
            except aio.AioRpcError as end:
                error = failure_of(end)
        assert error.reason == "TIMEOUT"
        assert int(error.metadata["output_tokens"]) > 0


BAD = {"bad UTF-8": b"\x0a\x02\xff\xfe", "truncated": b"\x0a\x7f", "no protobuf": b"\xff\xff\xff"}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECTION, REFLECTION.replace("v1", "v1alpha")])
async def test_bytes_that_are_no_message_are_an_invalid_argument_of_every_service(
    served: Serving, method: str, data: bytes
) -> None:
    error = await failure(collect(served.channel.unary_stream(method)(data)))
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "Error" not in error.message
    await served.works()


@pytest.mark.parametrize("method", ALL_KINDS[:4])
async def test_call_without_a_message_is_an_invalid_argument(served: Serving, method: str) -> None:
    async with await RawConnection.open(served.server.address) as connection:
        stream = connection.start(header_block(method), ends=True)
        await connection.until_ended(1, HANG)
        assert connection.ended[stream]["grpc-status"] == "3"


@pytest.mark.parametrize("path", ["/nobody.Service/Method", "/abstractllm_api.v1.GenerationService/Nothing", "/", "/x"])
async def test_method_that_there_is_none_of_is_unimplemented(served: Serving, path: str) -> None:
    error = await failure(served.channel.unary_unary(path)(b""))
    assert (error.code.name, error.reason) == ("UNIMPLEMENTED", "UNSUPPORTED_FEATURE")


async def test_each_call_is_told_of_once_however_it_ends() -> None:
    events: list[tuple[str, Any]] = []

    class Observer:
        def started(self, record: Any, metadata: Any) -> None:
            events.append(("started", record))

        def ended(self, record: Any) -> None:
            events.append(("ended", record))

    async with serving(read_timeout=0.3) as served, await RawConnection.open(served.server.address) as raw:
        served.server._guard._observers = (Observer(),)
        await served.works()
        await failure(served.generation.Generate(pb.GenerateRequest()))
        await failure(served.channel.unary_unary("/nobody.Service/Method")(b""))
        await failure(served.generation.Generate(request(script=ENDLESS), timeout=0.2))
        cancelled = served.generation.StreamGenerate(request(script=ENDLESS))
        await cancelled.read()
        cancelled.cancel()
        raw.start(header_block(GENERATE))
        raw.reset(raw.start(header_block(GENERATE)))
        await raw.until_ended(1, HANG)
        await until(lambda: len(events) % 2 == 0 and len(events) >= 12)
    records = [record for kind, record in events if kind == "started"]
    assert sorted(map(id, records)) == sorted(id(record) for kind, record in events if kind == "ended")
    assert Counter(record.status for record in records[:6]) == {
        "OK": 1,
        "INVALID_ARGUMENT": 1,
        "UNIMPLEMENTED": 1,
        "DEADLINE_EXCEEDED": 2,
        "CANCELLED": 1,
    }
    assert all(record.ended_at is not None and record.peer for record in records)


def test_connection_that_has_most_gives_way() -> None:
    calls = OpenCalls[int](limit=10, limit_per_source=6)
    number = itertools.count()
    assert [calls.add("few", next(number)) for _ in range(2)] == [[], []]
    assert [calls.add("many", next(number)) for _ in range(6)] == [[]] * 6
    assert calls.add("many", next(number)) == [2]
    assert [calls.add("others", next(number)) for _ in range(2)] == [[], []]
    assert calls.add("others", next(number)) == [3]
    assert calls.weight == 10
    assert sorted(calls) == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11]
    calls.remove("few", 0)
    calls.remove("few", 0)
    assert calls.add("few", 12, weight=2) == [4]
    assert calls.weight == 10
    assert calls.add("huge", 99, weight=7) == [99]


async def test_errors_that_name_each_other_as_their_cause_end_the_call_all_the_same() -> None:
    first, second = OverloadedError("full"), RateLimitedError("slow down")
    first.__cause__, second.__context__ = second, first
    async with serving({"echo": ScriptedProvider(script=[first])}) as served:
        assert (await failure(served.generation.Generate(request()))).reason == "OVERLOADED"
