"""Callers that read slowly, stop reading or freeze: they cost little, hold up nobody, and are let go of."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_server.transport import limits
from tests.server.local import PATIENCE, Local, ask, local
from tests.server.support import Failure, failure_of
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.lookahead_bytes", 65_535),
    ("grpc.http2.bdp_probe", 0),
]
"""A connection of its own whose flow control lets little through that is not read."""
MEBIBYTE = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        # The shipped values notice a frozen caller within 18 seconds.
        patch.setattr(limits, "_KEEPALIVE_MS", 1000)
        patch.setattr(limits, "_PING_TIMEOUT_MS", 1000)
        async with local(folder, window=100_000, max_batch_size=64, write_timeout=2) as running:
            yield running


def chatty(**parameters: object) -> pb.GenerateRequest:
    """A request for an answer of about a kilobyte a token."""
    return ask("tell me more", top_logprobs=20, **parameters)


def taken_bytes() -> int:
    """The memory that this process has taken, whether it is resident or swapped out at the moment.

    What is resident alone grows, too, when the kernel brings back pages that were taken from the process before.
    """
    status = Path("/proc/self/status").read_text()
    kibibytes = [int(number) for number in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.M)]
    assert len(kibibytes) == 2
    return sum(kibibytes) * 1024


async def read_on(stream: aio.UnaryStreamCall) -> Failure:
    """The error that the stream ends with, after all that was sent."""
    try:
        while await stream.read() is not aio.EOF:
            pass
    except aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError("the stream ended well")


async def test_fifty_callers_who_stop_reading_are_let_go_of_and_the_others_are_served(served: Local) -> None:
    async with aio.insecure_channel(served.server.address, NARROW) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        streams = [stub.StreamGenerate(chatty()) for _ in range(50)]
        for stream in streams:
            assert (await asyncio.wait_for(stream.read(), PATIENCE)).HasField("started")
        before = taken_bytes()
        answered = 0
        while served.llm.running:
            answer = await served.generation.Generate(ask(max_tokens=5), timeout=PATIENCE)
            assert answer.usage.output_tokens == 5
            answered += 1
            assert taken_bytes() - before < 50 * MEBIBYTE
            assert answered < 100_000
        assert answered > 1
        ends = await asyncio.wait_for(asyncio.gather(*(read_on(stream) for stream in streams)), PATIENCE)
        assert {(end.code, end.reason) for end in ends} == {(grpc.StatusCode.DEADLINE_EXCEEDED, "TIMEOUT")}
        assert {end.message for end in ends} == {"the caller read nothing for 2 seconds"}
        await until(lambda: served.server.running == 0)
    await served.comes_to_rest()


@pytest_asyncio.fixture(loop_scope="module")
async def patient(tmp_path: Path) -> AsyncIterator[Local]:
    """A server that waits for a reader for longer than an answer takes on a busy machine."""
    async with local(tmp_path, window=100_000, max_batch_size=64, write_timeout=PATIENCE) as running:
        yield running


async def test_caller_who_stops_for_a_while_gets_the_rest_in_fewer_pieces_and_misses_nothing(patient: Local) -> None:
    request = chatty(max_tokens=600, temperature=1.0, seed=3)
    whole = await patient.generation.Generate(request, timeout=PATIENCE)
    async with aio.insecure_channel(patient.server.address, NARROW) as channel:
        stream = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(request)
        events = [await stream.read()]
        # Nothing is read until the engine has finished: the rest waits in the server.
        await until(lambda: patient.counters.running == 0)
        assert patient.llm.running == 1
        while (event := await asyncio.wait_for(stream.read(), PATIENCE)) is not aio.EOF:
            events.append(event)
    deltas = [event.text_delta for event in events if event.HasField("text_delta")]
    assert "".join(delta.text for delta in deltas) == whole.text
    logprobs = [entry for delta in deltas for entry in delta.logprobs]
    assert [entry.token_id for entry in logprobs] == [entry.token_id for entry in whole.logprobs]
    assert all(len(entry.top) == 20 for entry in logprobs)
    assert len(deltas) < 400
    assert events[-1].finished.usage.output_tokens == 600
    await patient.comes_to_rest()


async def test_callers_cancelled_in_a_blocked_write_leave_nothing(served: Local) -> None:
    before = served.counters
    async with aio.insecure_channel(served.server.address, NARROW) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for _ in range(2):
            streams = [stub.StreamGenerate(chatty()) for _ in range(50)]
            for stream in streams:
                await asyncio.wait_for(stream.read(), PATIENCE)
            await until(lambda: served.server._guard._waiting.writers == 50)
            for stream in streams:
                stream.cancel()
            await until(served.is_at_rest)
    assert served.counters.released - before.released == 100


FROZEN = """
import sys, grpc
from abstractllm_api.v1 import generation_pb2 as pb, generation_pb2_grpc as rpc

stub = rpc.GenerationServiceStub(grpc.insecure_channel(sys.argv[1]))
parameters = pb.GenerationParameters(logit_bias={1: -100.0, 3: -100.0})
for event in stub.StreamGenerate(pb.GenerateRequest(prompt="hello", parameters=parameters)):
    print("reads", flush=True)
"""


async def test_frozen_caller_is_noticed_by_the_connection_and_its_slot_freed(served: Local) -> None:
    command = (sys.executable, "-c", FROZEN, served.server.address)
    caller = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert caller.stdout is not None
        for _ in range(3):
            assert await caller.stdout.readline() == b"reads\n"
        caller.send_signal(signal.SIGSTOP)
        assert served.counters.running == 1
        await served.comes_to_rest()
        assert caller.returncode is None
    finally:
        caller.kill()
        await caller.wait()
