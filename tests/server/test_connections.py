"""The connections of a server: those that only cost are closed, those that are used stay, and nobody crashes it."""

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc import aio

from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_server.transport import connections, sockets
from abstractllm_server.transport.connections import Connections, connection_limit
from abstractllm_server.transport.sockets import address_of_peer
from tests.reliability.http2 import RawConnection, frame, header_block
from tests.reliability.server_process import free_port
from tests.reliability.server_process import serving as process_serving
from tests.reliability.tokens import TOKEN, token_file
from tests.server.certificates import Authority
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until, wait_until

GENERATE = "/abstractllm_api.v1.GenerationService/Generate"


@contextlib.asynccontextmanager
async def silent(address: str, count: int) -> AsyncIterator[list[socket.socket]]:
    """Opens connections that say nothing."""
    host, _, port = address.rpartition(":")
    opened = [socket.create_connection((host.strip("[]"), int(port))) for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def count(served: Serving) -> int:
    return len(served.server._connections._first_seen)


async def newcomer(served: Serving) -> None:
    """Shows that a caller with a connection of their own is served, if need be at the second try."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(served.server.address, options) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        answer = await stub.Generate(request("here I am"), timeout=HANG, wait_for_ready=True)
        assert answer.text == "here I am"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_connection_that_says_nothing_is_closed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SILENT_SECONDS", 0.3)
    async with serving(listen=f"{host}:0") as served:
        await served.works()
        async with silent(served.server.address, 5):
            # They may be seen and closed between two looks of this test.
            await until(lambda: served.server._connections.closed == {"silent": 5})
            await until(lambda: count(served) == 1)
        await served.works()


async def test_newcomer_finds_room_among_silent_connections_and_calls_go_on() -> None:
    async with serving(max_connections=12) as served:
        stream = served.generation.StreamGenerate(request(script=[{"text": "a"}, {"delay": 3}, {"text": "b"}]))
        await stream.read()
        began = time.monotonic()
        async with silent(served.server.address, 30):
            await newcomer(served)
            assert time.monotonic() - began < HANG / 2
            await until(lambda: count(served) <= 9)
        rest = []
        while (event := await stream.read()) is not aio.EOF:
            rest.append(event)
        assert rest[-1].HasField("finished")


async def test_of_idle_connections_the_longest_unused_makes_room() -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with serving(max_connections=4) as served, contextlib.AsyncExitStack() as stack:
        channels = [aio.insecure_channel(served.server.address, options) for _ in range(4)]
        for channel in channels:
            await stack.enter_async_context(channel)
            await generation_pb2_grpc.GenerationServiceStub(channel).Generate(request(), timeout=HANG)
        await until(lambda: channels[0].get_state() is not grpc.ChannelConnectivity.READY)
        await until(lambda: served.server._connections.closed == {"crowded": 1})  # counted behind the closing
        assert [channel.get_state() for channel in channels[1:]] == [grpc.ChannelConnectivity.READY] * 3


async def test_connection_whose_tokens_are_refused_again_and_again_is_closed(tmp_path: Path) -> None:
    async with serving(tokens=token_file(tmp_path)) as served, await RawConnection.open(served.server.address) as bad:
        for number in range(3000):
            if bad.is_closed:
                break
            bad.start(header_block(GENERATE, "wrong"))
            if number % 50 == 0:
                await bad.drain()
                await asyncio.sleep(0.01)
        await until(lambda: bad.is_closed)
        await until(lambda: served.server._connections.closed == {"abuse": 1})
        stub = generation_pb2_grpc.GenerationServiceStub(served.channel)
        metadata = (("authorization", f"Bearer {TOKEN}"),)
        assert (await stub.Generate(request("good"), timeout=HANG, metadata=metadata)).text == "good"


async def test_outdated_connections_are_closed_when_their_calls_have_ended() -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with serving() as served, aio.insecure_channel(served.server.address, options) as other:
        await generation_pb2_grpc.GenerationServiceStub(other).Generate(request())
        stream = served.generation.StreamGenerate(request(script=[{"text": "a"}, {"delay": 1}, {"text": "b"}]))
        await stream.read()
        await until(lambda: count(served) == 2)
        served.server._connections.close_opened_before(time.monotonic())
        await until(lambda: served.server._connections.closed["outdated"] == 1)
        while (event := await stream.read()) is not aio.EOF:
            last = event
        assert last.HasField("finished")
        await until(lambda: served.server._connections.closed["outdated"] == 2)
        await newcomer(served)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5555", ("127.0.0.1", 5555)),
        ("ipv6:%5B::1%5D:5555", ("::1", 5555)),
        ("ipv6:[::1]:5555", ("::1", 5555)),
        ("ipv6:%5B::ffff:10.0.0.1%5D:80", ("10.0.0.1", 80)),
        ("ipv6:%5Bfe80::1%25eth0%5D:80", ("fe80::1", 80)),
        ("unix:", None),
        ("", None),
    ],
)
def test_name_of_a_connection_is_understood(peer: str, address: tuple[str, int] | None) -> None:
    assert address_of_peer(peer) == address


def test_very_many_connections_take_a_small_part_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def look(_: Connections) -> None:
        looks.append(time.monotonic())
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(Connections, "_look", look)
    keeper = Connections(10)
    keeper.start({1})
    wait_until(lambda: len(looks) == 2)
    keeper.stop()
    assert looks[1] - looks[0] > 1


def test_connections_leave_descriptors_for_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {256: 192, 1024: 768, 80: 16, 10: 1}
    for descriptors, most in limits.items():
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, soft=descriptors: (soft, soft))
        assert connection_limit(1000) == most
    assert connection_limit(5) == 1


def test_connections_are_seen_though_no_descriptor_is_left() -> None:
    """Else the keeper could close none just when that is needed most."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        caller = stack.enter_context(socket.create_connection(listener.getsockname()))
        stack.enter_context(listener.accept()[0])
        port, last = listener.getsockname()[1], 0
        highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
        while last < highest:
            last = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, most))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, most))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        assert caller.getsockname() in {one.peer for one in sockets.connections({port})}


async def test_strangers_who_do_not_shake_hands_cannot_crash_the_server(tmp_path: Path) -> None:
    """grpc frees certificates that handshakes use, where it is handed certificates for each connection."""
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    root = authority.pair.certificate.read_bytes()
    async with process_serving(
        tmp_path,
        tls={"certificate": str(pair.certificate), "key": str(pair.key)},
        credentials=grpc.ssl_channel_credentials(root),
    ) as server:
        for _ in range(4):
            async with silent(server.address, 300):
                await asyncio.sleep(0.2)
        assert await server.is_healthy()
        assert server.process.returncode is None


async def test_strangers_at_the_ports_for_monitoring_leave_descriptors_to_callers(tmp_path: Path) -> None:
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("monitoring", "health")}
    async with process_serving(tmp_path, descriptors=256, **ports) as server, contextlib.AsyncExitStack() as stack:
        for address in (server.address, *ports.values()):
            for stranger in await stack.enter_async_context(silent(address, 150)):
                with contextlib.suppress(ConnectionError):
                    stranger.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        for _ in range(3):
            assert await server.becomes_healthy(timeout=HANG) < HANG / 2
            await asyncio.sleep(0.2)
