"""Connections that grow old: their callers connect anew, and nothing that runs is cut."""

from __future__ import annotations

import asyncio

from grpc import aio

from abstractllm.call_record import CallRecord
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_client import AsyncRemoteLLM
from abstractllm_server.telemetry.observer import Metadata
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until

WORDS = " ".join(str(number) for number in range(25))
CONFIG = (
    '{"loadBalancingConfig": [{"weighted_round_robin": {"enableOobLoadReport": true, "oobReportingPeriod": "1s"}}]}'
)


class Peers(list[str]):
    """The connections that calls came through, in the order of their first call."""

    def __init__(self, served: Serving) -> None:
        super().__init__()
        served.server._guard._observers += (self,)

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        if record.peer not in self:
            self.append(record.peer)

    def ended(self, record: CallRecord) -> None:
        """Does nothing."""


def connections(served: Serving) -> int:
    """The number of connections, as the server's keeper of them sees it."""
    numbers = {one.name: one.value for one in served.server._connections.measurements()}
    return int(numbers["abstractllm.server.connections"])


async def test_an_answer_outlasts_its_connections_age_many_times_over() -> None:
    async with serving({"echo": ScriptedProvider()}, max_connection_age="1s") as served:
        peers = Peers(served)
        stream = served.generation.StreamGenerate(request(WORDS, delay=0.15), timeout=HANG)
        reading = asyncio.create_task(anext(stream.__aiter__()))
        await reading
        began_on = peers[0]
        rest = asyncio.create_task(_text(stream))
        while not rest.done():
            await served.generation.Generate(request("a", delay=0.05), timeout=HANG)
        assert await rest == WORDS
        assert peers[0] == began_on and len(peers) >= 3


async def _text(stream: aio.UnaryStreamCall) -> str:
    return "".join([event.text_delta.text async for event in stream])


async def test_calls_move_to_new_connections_and_old_ones_are_closed() -> None:
    async with serving({"echo": ScriptedProvider()}, max_connection_age="1s") as served:
        peers = Peers(served)
        async with AsyncRemoteLLM(served.server.address) as client:
            while len(peers) < 4:
                assert await client.generate("a b", provider_options={"delay": 0.02}) == "a b"
            await until(lambda: connections(served) <= 2)
        await until(lambda: connections(served) == 0)


async def test_a_stream_of_reports_moves_to_the_new_connection_with_its_client() -> None:
    """A connection that only has such a stream left is one that its client gives up."""
    async with (
        serving({"echo": ScriptedProvider()}, max_connection_age="1s") as served,
        aio.insecure_channel(served.server.address, [("grpc.service_config", CONFIG)]) as channel,
    ):
        peers = Peers(served)
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        while len(peers) < 5:
            assert (await stub.Generate(request("a"), timeout=HANG)).text == "a"
            await asyncio.sleep(0.02)
        await until(lambda: connections(served) <= 2)


async def test_without_the_key_a_connection_stays(served: Serving) -> None:
    peers = Peers(served)
    end = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < end:
        await served.generation.Generate(request("a b", delay=0.02), timeout=HANG)
    assert len(peers) == 1
