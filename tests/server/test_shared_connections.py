"""One connection with the calls of many callers, as a gateway brings them: nobody pays for another's."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.transport import waiting_calls
from abstractllm_server.transport.connections import Connections, Strike
from abstractllm_server.transport.sockets import address_of_peer
from tests.reliability.http2 import RawConnection, frame, header_block, message
from tests.reliability.tokens import ADMIN, TOKEN, token_file
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until

GENERATE = "/abstractllm_api.v1.GenerationService/Generate"
STREAM = "/abstractllm_api.v1.GenerationService/StreamGenerate"
PAUSE = [{"text": "before"}, {"delay": 1}, {"text": "after"}]
UNAUTHENTICATED, OVERLOADED = "16", "8"


def start(connection: RawConnection, method: str, *, token: str | None = None, **fields: Any) -> int:
    """Sends a whole call."""
    return connection.unary(header_block(method, token), request(**fields).SerializeToString())


async def flood(connection: RawConnection, headers: bytes, count: int) -> list[int]:
    """Sends headers, no more at a time than a connection may have calls."""
    streams = []
    for number in range(count):
        streams.append(connection.start(headers))
        if number % 50 == 0:
            await connection.until_ended(number - 50, HANG)
    return streams


def closed(served: Serving) -> dict[str, int]:
    return dict(served.server._connections.closed)


async def test_refused_tokens_cost_no_other_caller_of_the_connection_a_running_call(tmp_path: Path) -> None:
    async with (
        serving(tokens=token_file(tmp_path)) as served,
        await RawConnection.open(served.server.address) as gateway,
    ):
        good = start(gateway, STREAM, token=TOKEN, script=PAUSE)
        await until(lambda: served.server.running == 1)
        bad = await flood(gateway, header_block(GENERATE, "wrong"), 600)
        await gateway.until_ended(len(bad) + 1, HANG)
        assert {gateway.ended[stream].get("grpc-status") for stream in bad} == {UNAUTHENTICATED}
        assert gateway.ended[good]["grpc-status"] == "0"
        # Nor do they cost the calls that the gateway is about to bring.
        last = start(gateway, GENERATE, token=TOKEN)
        await gateway.until_ended(len(bad) + 2, HANG)
        assert gateway.ended[last]["grpc-status"] == "0"
        assert closed(served) == {}


def test_calls_that_bring_nothing_count_once_the_connection_has_brought_nothing_else_for_a_while() -> None:
    keeper, peer = Connections(10), "ipv4:192.0.2.1:5555"
    address = address_of_peer(peer)

    def strikes() -> dict[Any, str]:
        for _ in range(250):
            keeper.strike(peer, Strike.USELESS)
        return keeper._condemned

    keeper.call_began(peer)
    keeper._uses[address].last -= 100
    assert strikes() == {}
    keeper.call_ended(peer)
    assert strikes() == {}
    keeper._uses[address].last -= 100
    assert strikes() == {address: "abuse"}


async def test_answer_that_nobody_reads_costs_no_other_caller_of_the_connection_a_running_call() -> None:
    async with serving(write_timeout=0.3) as served:
        await served.works()
        async with await RawConnection.open(served.server.address, window=0) as gateway:
            good = start(gateway, STREAM, script=PAUSE)
            gateway._writer.write(frame(8, 0, good, struct.pack(">I", 1 << 20)))  # all of it may be sent
            await until(lambda: served.server.running == 1)
            start(gateway, GENERATE)
            await gateway.until_ended(1, HANG)
            assert gateway.ended.get(good, {}).get("grpc-status") == "0"
            # gRPC holds the answer as long as no other call comes, and the connection is open.
            await until(lambda: gateway.is_closed)
            await until(lambda: closed(served) == {"unread": 1})
        await served.works()


async def test_calls_without_a_message_make_place_for_their_own_caller_s_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_calls, "_PENDING_PER_SOURCE", 8)
    async with (
        serving(tokens=token_file(tmp_path)) as served,
        await RawConnection.open(served.server.address) as gateway,
    ):
        patient = gateway.start(header_block(GENERATE, ADMIN))
        await until(lambda: served.server._guard._waiting.pending == 1)
        many = [gateway.start(header_block(GENERATE, TOKEN)) for _ in range(20)]
        await gateway.until_ended(12, HANG)
        assert {gateway.ended[stream]["grpc-status"] for stream in many[:12]} == {OVERLOADED}
        await gateway.send(patient, message(pb.GenerateRequest(prompt="hello").SerializeToString()))
        await until(lambda: patient in gateway.ended)
        assert gateway.ended[patient]["grpc-status"] == "0"


async def test_burst_of_long_prompts_through_one_connection_is_answered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine messages are slow: that is not what this is about.
    monkeypatch.setattr(waiting_calls, "_TURNS", {"at_a_time": 16, "slow": 1000, "slow_per_source": 1000})
    async with serving() as served:
        prompt = "x" * 100_000
        answers = await asyncio.gather(
            *(served.generation.CountTokens(pb.CountTokensRequest(prompt=prompt)) for _ in range(800))
        )
        assert {answer.input_tokens for answer in answers} == {1}
