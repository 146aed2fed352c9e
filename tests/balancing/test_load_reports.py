"""Load reports as they come over the wire: with the end of each call, and as a stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from abstractllm.errors import ConfigurationError
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.load_reports import LOAD_SERVICE, LoadReport, LoadReportRequest
from abstractllm_server.settings import load_settings
from tests.balancing.raw_call import TRAILER, call, report
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until

GENERATE = "/abstractllm_api.v1.GenerationService/Generate"
STREAM = "/abstractllm_api.v1.GenerationService/StreamGenerate"
TOKEN = "inference-token-55aa"


def stream_of(channel: aio.Channel, seconds: float | None = None, token: str | None = None) -> Any:
    """Opens the stream of reports."""
    method = channel.unary_stream(
        f"/{LOAD_SERVICE}/StreamCoreMetrics",
        request_serializer=LoadReportRequest.SerializeToString,
        response_deserializer=LoadReport.FromString,
    )
    message = LoadReportRequest()
    if seconds is not None:
        message.report_interval.CopyFrom(duration_pb2.Duration(nanos=int(seconds * 1e9)))
    metadata = (("authorization", f"Bearer {token}"),) if token else None
    return method(message, metadata=metadata, timeout=HANG)


async def raw(served: Serving, path: str, message: pb.GenerateRequest, **metadata: str) -> dict[str, list[str]]:
    return await asyncio.to_thread(call, served.server.address, path, message.SerializeToString(), metadata)


@pytest.mark.parametrize("path", [GENERATE, STREAM])
async def test_every_answer_ends_with_the_load_of_which_it_is_a_part(served: Serving, path: str) -> None:
    trailers = await raw(served, path, request(delay=0.01))
    assert trailers["grpc-status"] == ["0"]
    load = report(trailers)
    assert load is not None
    assert load.rps_fractional > 0  # gRPC ignores a report without a rate, or without utilization
    assert load.application_utilization > 0
    assert load.eps == 0
    assert load.named_metrics == {"running": 0, "waiting": 0, "running_limit": 0}


async def test_a_failure_of_the_server_counts_as_an_error_and_one_of_the_caller_does_not(served: Serving) -> None:
    refused = await raw(served, GENERATE, pb.GenerateRequest(prompt="x", parameters={"temperature": -1}))
    assert refused["grpc-status"] == ["3"]
    load = report(refused)
    assert load is not None and load.eps == 0 and load.rps_fractional == 0
    await asyncio.sleep(0.1)  # reports are made anew twenty times a second
    overloaded = await raw(served, GENERATE, request(script=[{"error": "OVERLOADED", "message": "no"}]))
    assert overloaded["grpc-status"] == ["8"]
    assert "grpc-retry-pushback-ms" in overloaded and "grpc-status-details-bin" in overloaded
    load = report(overloaded)
    assert load is not None and load.eps > 0
    # A server that refuses quickly must not look fast: what it answers is what counts.
    assert 0 < load.rps_fractional < load.eps / 10


async def test_probes_and_unknown_methods_bring_no_report(served: Serving) -> None:
    assert report(await asyncio.to_thread(call, served.server.address, "/grpc.health.v1.Health/Check", b"")) is None
    trailers = await asyncio.to_thread(call, served.server.address, "/a.B/C", b"")
    assert trailers["grpc-status"] == ["12"] and TRAILER not in trailers


async def test_reports_tell_what_runs_and_waits() -> None:
    llm = ScriptedProvider({"delay": 1000})
    async with serving({"slow": llm}) as served:
        tasks = [asyncio.ensure_future(served.generation.Generate(request(), timeout=HANG)) for _ in range(5)]
        await until(lambda: llm.running == 5)
        stream = stream_of(served.channel)
        load = await stream.read()
        assert load.named_metrics["running"] == 5
        assert load.named_metrics["waiting"] == 0
        stream.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: llm.running == 0)


async def test_the_stream_goes_on_at_its_interval_and_not_faster_than_the_server_allows() -> None:
    async with serving(load_reports={"interval": "100ms"}) as served:

        async def pause(wanted: float | None) -> float:
            """The mean time between two reports."""
            stream = stream_of(served.channel, wanted)
            await stream.read()
            began = asyncio.get_running_loop().time()
            for _ in range(3):
                assert isinstance(await stream.read(), LoadReport)
            stream.cancel()
            return (asyncio.get_running_loop().time() - began) / 3

        absent, too_often, rarely = await asyncio.gather(pause(None), pause(0.001), pause(0.4))
        assert min(absent, too_often) >= 0.095
        assert rarely >= 0.38
        assert max(absent, too_often) < rarely  # the longer one is what the request has named


async def test_a_connection_has_few_streams_and_one_that_ends_makes_room() -> None:
    async with serving() as served:
        streams = [stream_of(served.channel) for _ in range(4)]
        for stream in streams:
            await stream.read()
        with pytest.raises(aio.AioRpcError) as refused:
            await stream_of(served.channel).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()

        async def has_room() -> bool:
            try:
                again = stream_of(served.channel)
                await again.read()
            except aio.AioRpcError:
                return False
            again.cancel()
            return True

        async with asyncio.timeout(HANG):
            while not await has_room():  # noqa: ASYNC110 # the server sets no event
                await asyncio.sleep(0.05)
        for stream in streams[1:]:
            stream.cancel()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{hashlib.sha256(TOKEN.encode()).hexdigest()} inference backend\n")
    return path


@pytest.fixture
async def guarded(tokens: Path) -> AsyncIterator[Serving]:
    async with serving(tokens=tokens) as served:
        yield served


async def test_who_is_not_known_learns_nothing_of_the_load(guarded: Serving) -> None:
    with pytest.raises(aio.AioRpcError) as refused:
        await stream_of(guarded.channel).read()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    trailers = await raw(guarded, GENERATE, request())
    assert trailers["grpc-status"] == ["16"] and TRAILER not in trailers


async def test_a_known_caller_needs_no_further_right(guarded: Serving) -> None:
    stream = stream_of(guarded.channel, token=TOKEN)
    assert isinstance(await stream.read(), LoadReport)
    stream.cancel()
    trailers = await raw(guarded, GENERATE, request(), authorization=f"Bearer {TOKEN}")
    assert report(trailers) is not None


async def test_the_stream_can_be_opened_to_everybody(tokens: Path) -> None:
    async with serving(tokens=tokens, load_reports={"without_credentials": True}) as served:
        stream = stream_of(served.channel)
        assert isinstance(await stream.read(), LoadReport)
        stream.cancel()
        trailers = await raw(served, GENERATE, request())
        assert trailers["grpc-status"] == ["16"] and TRAILER not in trailers


async def test_reports_can_be_switched_off() -> None:
    async with serving(load_reports={"trailers": False, "stream": False}) as served:
        assert report(await raw(served, GENERATE, request())) is None
        with pytest.raises(aio.AioRpcError) as refused:
            await stream_of(served.channel).read()
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_describes_the_service(served: Serving) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    message = reflection_pb2.ServerReflectionRequest(file_containing_symbol=LOAD_SERVICE)
    (answer,) = [one async for one in stub.ServerReflectionInfo(iter([message]))]
    files = b"".join(answer.file_descriptor_response.file_descriptor_proto)
    assert b"StreamCoreMetrics" in files and b"application_utilization" in files


async def test_a_stream_of_reports_does_not_hold_up_a_stop() -> None:
    async with serving(grace=HANG) as served:
        stream = stream_of(served.channel)
        await stream.read()
        began = asyncio.get_running_loop().time()
        await served.server.stop()
        assert asyncio.get_running_loop().time() - began < HANG / 2
        assert await stream.code() is not grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("lines", "field", "part"),
    [
        ("load_reports: {interval: 50ms}", "load_reports.interval", "0.1"),
        ("load_reports: {often: true}", "load_reports.often", "often"),
        ("max_connection_age: 10ms", "max_connection_age", "1"),
        ("max_connection_age: long", "max_connection_age", "seconds"),
    ],
)
def test_faults_are_named(tmp_path: Path, lines: str, field: str, part: str) -> None:
    path = tmp_path / "llms.yaml"
    path.write_text(f"{lines}\nllms: {{a: {{provider: scripted}}}}\n")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(path, {})
    message = str(refused.value)
    assert message.startswith(f"{path}:1: {field}") and part in message


def test_the_messages_are_those_of_orca() -> None:
    """The bytes of a report as any other implementation writes it: the numbers of the fields are fixed."""
    data = bytes.fromhex("09" + "000000000000e03f" + "31" + "0000000000001440" + "49" + "000000000000f83f")
    assert LoadReport.FromString(data) == LoadReport(
        cpu_utilization=0.5, rps_fractional=5.0, application_utilization=1.5
    )
    data = bytes.fromhex("2a0c" + "0a0161" + "11" + "000000000000d03f") + bytes.fromhex("39" + "0000000000000040")
    assert LoadReport.FromString(data) == LoadReport(utilization={"a": 0.25}, eps=2.0)
