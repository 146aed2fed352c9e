"""The ports for monitoring: they tell the truth while the event loop is blocked, and no client costs much."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from abstractllm.errors import ConfigurationError
from abstractllm.testing import ScriptedProvider
from abstractllm_server.monitoring.heartbeat import LoopHeartbeat
from abstractllm_server.monitoring.http_server import HttpServer
from abstractllm_server.monitoring.status_board import StatusBoard
from abstractllm_server.settings import ServerSettings, load_settings
from tests.server.certificates import Authority
from tests.server.support import HANG, Serving, request, serving
from tests.server.test_health import Gated
from tests.waiting import until, wait_until

LOCAL = "127.0.0.1:0"
Status = HealthCheckResponse.ServingStatus.Name


def get(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    connection = http.client.HTTPConnection(address, timeout=HANG)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Monitored(Serving):
    """A server with both ports for monitoring."""

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.server.monitor.http_address, path, method, **headers)

    async def check(self, service: str) -> str:
        return await asyncio.to_thread(check, self.server.monitor.health_address, service)


def check(address: str, service: str) -> str:
    """The status of a service."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return Status(stub.Check(HealthCheckRequest(service=service), timeout=HANG, wait_for_ready=True).status)


@asynccontextmanager
async def monitored(llms: Any = None, **settings: Any) -> AsyncIterator[Monitored]:
    async with serving(llms, **{"monitoring": LOCAL, "health": LOCAL} | settings) as served:
        served.__class__ = Monitored
        assert isinstance(served, Monitored)
        yield served


async def test_both_ports_tell_whether_the_server_lives_and_which_llm_can_answer() -> None:
    slow = Gated()
    async with monitored({"slow": slow, "quick": ScriptedProvider()}) as served:
        assert await served.get("/livez") == (200, "ok\n")
        assert (await served.get("/readyz"))[0] == 503
        assert (await served.get("/readyz?llm=quick"))[0] == 200
        assert (await served.get("/readyz?llm=slow"))[0] == 503
        assert (await served.get("/readyz?llm=nobody"))[0] == 404
        assert await served.check("liveness") == "SERVING"
        assert (await served.check(""), await served.check("llm/slow")) == ("NOT_SERVING", "NOT_SERVING")
        slow.gate.set()
        await until(lambda: slow.state[0] == "ready")
        await until(lambda: served.server.monitor._board.is_serving(""))
        assert await served.get("/readyz") == (200, "ok\n")
        assert (await served.check(""), await served.check("llm/slow")) == ("SERVING", "SERVING")
        body = (await served.get("/metrics"))[1]
        assert "# TYPE" in body
        assert "abstractllm_server_loop_lag" in body


async def test_blocked_event_loop_is_neither_alive_nor_ready_and_both_again_afterwards() -> None:
    async with monitored(loop_timeout=1) as served:
        http, health = served.server.monitor.http_address, served.server.monitor.health_address
        answers: list[Any] = []

        def ask() -> None:
            time.sleep(2)
            answers.append((get(http, "/livez")[0], get(http, "/readyz")[0]))
            answers.append((check(health, "liveness"), check(health, ""), check(health, "llm/echo")))
            answers.append(get(http, "/metrics")[0])

        asker = threading.Thread(target=ask)
        asker.start()
        asker.join()  # the event loop is blocked meanwhile
        assert answers == [(503, 503), ("NOT_SERVING",) * 3, 200]
        await until(lambda: served.server.monitor.heartbeat.is_alive)
        assert (await served.get("/livez"))[0] == (await served.get("/readyz"))[0] == 200
        assert await served.check("liveness") == "SERVING"


async def test_watcher_is_told_that_the_loop_is_blocked_and_that_it_runs_again() -> None:
    async with monitored(loop_timeout=1) as served:
        with grpc.insecure_channel(served.server.monitor.health_address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(), timeout=HANG)
            statuses: list[str] = []

            def read() -> None:
                with contextlib.suppress(grpc.RpcError):
                    statuses.extend(Status(answer.status) for answer in watch)

            reader = threading.Thread(target=read)
            reader.start()
            await until(lambda: statuses == ["SERVING"])
            wait_until(lambda: len(statuses) == 2)  # without the event loop
            await until(lambda: len(statuses) == 3)
            watch.cancel()
            await asyncio.to_thread(reader.join)
        assert statuses == ["SERVING", "NOT_SERVING", "SERVING"]


async def test_server_that_drains_is_alive_and_not_ready() -> None:
    async with monitored() as served:
        stream = served.generation.StreamGenerate(request(script=[{"text": "x"}, {"delay": 3000}]))
        await stream.read()
        stopping = asyncio.create_task(served.server.stop(HANG))
        await asyncio.sleep(0)
        assert ((await served.get("/livez"))[0], (await served.get("/readyz"))[0]) == (200, 503)
        assert (await served.check("liveness"), await served.check("")) == ("SERVING", "NOT_SERVING")
        stream.cancel()
        await asyncio.wait_for(stopping, HANG)
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            await served.get("/livez")


async def test_monitoring_answers_under_mutual_tls_without_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server")
    tls = {"certificate": pair.certificate, "key": pair.key, "client_ca": authority.pair.certificate}
    async with monitored(tls=tls | {"subjects": {"anyone": "admin"}}) as served:
        assert await served.get("/livez") == (200, "ok\n")
        assert await served.check("liveness") == "SERVING"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /livez HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /livez/../secret HTTP/1.1\r\n\r\n", 404),
        (b"GET /%00 HTTP/1.1\r\n\r\n", 404),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET http://127.0.0.1/livez?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 100_000, 431),
        (b"GET /readyz?" + b"&llm=" * 1000 + b" HTTP/1.1\r\n\r\n", 200),
        (b"GET /readyz?llm=%ff%0a HTTP/1.1\r\n\r\n", 404),
    ],
)
async def test_request_of_any_form_has_one_answer(sent: bytes, status: int) -> None:
    async with monitored(health=None) as served:
        answer = await asyncio.to_thread(exchange, served.server.monitor.http_address, sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *headers = head.decode().split("\r\n")
        assert int(first.split()[1]) == status
        assert f"Content-Length: {len(body)}" in headers
        assert "Connection: close" in headers


def exchange(address: str, sent: bytes) -> bytes:
    """Returns the bytes that come back until the server closes the connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), HANG) as one:
        one.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := one.recv(65536):
                received += data
        return received


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with monitored(health=None) as served:
        answer = await asyncio.to_thread(exchange, served.server.monitor.http_address, b"HEAD /livez HTTP/1.1\r\n\r\n")
        assert b"Content-Length: 3\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")


def process_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


async def test_connections_that_say_nothing_keep_nobody_out_and_are_closed() -> None:
    async with monitored(health=None) as served:
        address = served.server.monitor.http_address
        host, _, port = address.rpartition(":")
        before, threads = process_bytes(), threading.active_count()
        silent = await asyncio.to_thread(
            lambda: [socket.create_connection((host, int(port)), HANG) for _ in range(500)]
        )
        try:
            for _ in range(5):
                assert (await served.get("/livez"))[0] == 200
            server = served.server.monitor._http
            assert server is not None
            assert len(server._connections) <= 64
            await until(lambda: not server._connections, timeout=HANG)
            assert threading.active_count() <= threads + 3
            assert process_bytes() - before < 20 << 20
        finally:
            for one in silent:
                one.close()


async def test_readers_of_metrics_who_take_nothing_are_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractllm_server.monitoring.http_server._WRITE_TIMEOUT", 0.5)
    body = b"x" * (8 << 20)
    board = StatusBoard(dict, LoopHeartbeat(5))
    calls = []

    def render(accept: str) -> tuple[bytes, str]:
        calls.append(accept)
        return body, "text/plain"

    with http_server(board, render) as (server, address):
        host, _, port = address.rpartition(":")
        deaf = []
        for _ in range(60):
            one = socket.create_connection((host, int(port)), HANG)
            one.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            deaf.append(one)
        await until(lambda: len(server._connections) > 50)
        await until(lambda: not server._connections, timeout=HANG)
        for one in deaf:
            one.close()
        # Those who ask together share what was rendered.
        assert len(calls) < 20
        assert len((await asyncio.to_thread(get, address, "/metrics"))[1]) == len(body)


@contextlib.contextmanager
def http_server(board: StatusBoard, render: Any) -> Iterator[tuple[HttpServer, str]]:
    """An HTTP server alone, in a thread."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        server = HttpServer([one], board, render)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server, "{}:{}".format(*one.getsockname())
        finally:
            server.stop()
            thread.join()


async def test_metrics_that_cannot_be_rendered_or_take_too_long_are_an_error_and_liveness_is_not_held_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("abstractllm_server.monitoring.http_server._RENDER_TIMEOUT", 0.5)
    gate = threading.Event()

    def render(accept: str) -> tuple[bytes, str]:
        if accept == "slow":
            gate.wait()
        raise ValueError("no metrics today")

    heartbeat = LoopHeartbeat(5)
    board = StatusBoard(lambda: {"liveness": HealthCheckResponse.SERVING}, heartbeat)
    with http_server(board, render) as (_, address):
        assert (await asyncio.to_thread(get, address, "/metrics"))[0] == 500
        assert "no metrics today" in caplog.text
        assert (await asyncio.to_thread(get, address, "/metrics", Accept="slow"))[0] == 503
        assert (await asyncio.to_thread(get, address, "/livez"))[0] == 200
        gate.set()


# The port for health checks.


def health_stub(served: Monitored) -> tuple[grpc.Channel, Any]:
    channel = grpc.insecure_channel(served.server.monitor.health_address)
    return channel, health_pb2_grpc.HealthStub(channel)


def code_of(call: Callable[[], Any]) -> str:
    """The status that a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


async def test_health_port_answers_list_and_refuses_what_is_no_question() -> None:
    async with monitored(monitoring=None) as served:
        channel, stub = health_stub(served)
        with channel:

            def ask() -> None:
                statuses = stub.List(health_pb2.HealthListRequest(), timeout=HANG).statuses
                assert {name: Status(one.status) for name, one in statuses.items()} == {
                    "liveness": "SERVING",
                    "": "SERVING",
                    "llm/echo": "SERVING",
                }
                unknown = HealthCheckRequest(service="nobody")
                assert code_of(lambda: stub.Check(unknown, timeout=HANG)) == "NOT_FOUND"
                watch = stub.Watch(unknown, timeout=HANG)
                assert Status(next(watch).status) == "SERVICE_UNKNOWN"
                watch.cancel()
                for method in ("Check", "List", "Watch"):
                    path = f"/grpc.health.v1.Health/{method}"
                    malformed = channel.stream_stream(path)(iter([b"\xff\xff\xff"]), timeout=HANG)
                    assert code_of(lambda call=malformed: list(call)) == "INVALID_ARGUMENT"
                    nothing = channel.stream_stream(path)(iter([]), timeout=HANG)
                    assert code_of(lambda call=nothing: list(call)) == "INVALID_ARGUMENT"
                    large = channel.stream_stream(path)(iter([b"x" * 100_000]), timeout=HANG)
                    assert code_of(lambda call=large: list(call)) == "RESOURCE_EXHAUSTED"
                other = channel.unary_unary("/abstractllm_api.v1.GenerationService/Generate")
                assert code_of(lambda: other(b"", timeout=HANG)) == "UNIMPLEMENTED"

            await asyncio.to_thread(ask)


async def test_calls_without_a_message_keep_nobody_out_and_are_ended() -> None:
    async with monitored(monitoring=None) as served:
        address = served.server.monitor.health_address
        server = served.server.monitor._health
        assert server is not None
        gate = threading.Event()

        def never() -> Iterator[bytes]:
            gate.wait()
            yield b""

        channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
        try:
            before = process_bytes()
            path = "/grpc.health.v1.Health/Check"
            calls = [channel.stream_stream(path)(never()) for channel in channels for _ in range(30)]
            for _ in range(10):
                began = time.monotonic()
                assert await served.check("liveness") == "SERVING"
                assert time.monotonic() - began < HANG / 4
            await until(lambda: not server._calls._calls, timeout=HANG)
            await until(lambda: not any(call.is_active() for call in calls), timeout=HANG)
            assert process_bytes() - before < 60 << 20  # of which most are the clients'
        finally:
            gate.set()
            for channel in channels:
                channel.close()


async def test_connections_without_calls_keep_nobody_out() -> None:
    async with monitored(monitoring=None) as served:
        host, _, port = served.server.monitor.health_address.rpartition(":")
        greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

        def connect() -> list[socket.socket]:
            idle = [socket.create_connection((host, int(port)), HANG) for _ in range(300)]
            for number, one in enumerate(idle):
                if number % 2:
                    with contextlib.suppress(OSError):
                        one.sendall(greeting)
            return idle

        idle = await asyncio.to_thread(connect)
        try:
            for _ in range(3):
                began = time.monotonic()
                assert await served.check("liveness") == "SERVING"
                assert time.monotonic() - began < HANG
        finally:
            for one in idle:
                one.close()


async def test_watchers_are_bounded_and_checks_go_on_beside_them() -> None:
    async with monitored(monitoring=None) as served:
        address = served.server.monitor.health_address
        channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]
        try:
            stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
            watches = [stubs[number % 4].Watch(HealthCheckRequest(service="liveness")) for number in range(64)]
            for watch in watches:
                assert Status((await asyncio.to_thread(next, watch)).status) == "SERVING"
            further = [stubs[number % 4].Watch(HealthCheckRequest(), timeout=HANG) for number in range(16)]
            codes = [await asyncio.to_thread(code_of, lambda call=watch: next(call)) for watch in further]
            assert set(codes) == {"RESOURCE_EXHAUSTED"}
            assert await served.check("") == "SERVING"
            for watch in watches:
                watch.cancel()
            server = served.server.monitor._health
            assert server is not None
            await until(lambda: server._calls._watchers == 0)
            assert Status((await asyncio.to_thread(next, stubs[0].Watch(HealthCheckRequest()))).status) == "SERVING"
        finally:
            for channel in channels:
                channel.close()


async def test_watcher_that_takes_nothing_is_ended(deaf_watcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("abstractllm_server.monitoring.health_server._READ_TIMEOUT", 1.0)
    async with monitored(monitoring=None) as served:
        server = served.server.monitor._health
        assert server is not None
        await deaf_watcher(served.server.monitor.health_address)
        await until(lambda: server._calls._watchers == 1)
        await until(lambda: server._calls._watchers == 0, timeout=HANG)


# Settings.


@pytest.mark.parametrize("key", ["monitoring", "health"])
@pytest.mark.parametrize("address", ["9464", "unix:///run/x.sock", "127.0.0.1", "::1:80", "127.0.0.1:99999", "x:-1"])
def test_address_that_is_none_is_refused_by_its_key(key: str, address: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}: .* is not a valid address") as failure:
        ServerSettings(llms={"echo": {}}, **{key: address}).check()
    assert failure.value.field == key


def test_ports_must_differ() -> None:
    for addresses in (
        {"monitoring": "127.0.0.1:7000", "health": "127.0.0.1:7000"},
        {"listen": "127.0.0.1:7000", "health": "127.0.0.1:7000"},
        {"listen": "127.0.0.1:7000", "monitoring": "127.0.0.1:7000"},
    ):
        with pytest.raises(ConfigurationError, match="each needs its own"):
            ServerSettings(llms={"echo": {}}, **addresses).check()
    ServerSettings(llms={"echo": {}}, listen=LOCAL, monitoring=LOCAL, health=LOCAL).check()


@pytest.mark.parametrize("key", ["monitoring", "health"])
async def test_port_in_use_is_refused_by_its_key(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        threads = threading.active_count()
        with pytest.raises(ConfigurationError, match=f"{key}: cannot listen on {address}") as failure:
            async with monitored(**{key: address}):
                pass
        assert failure.value.field == key
        await until(lambda: threading.active_count() <= threads + 1)


def test_environment_gives_the_ports_that_the_file_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABSTRACTLLM_MONITORING", "127.0.0.1:1")
    monkeypatch.setenv("ABSTRACTLLM_HEALTH", "127.0.0.1:2")
    file = tmp_path / "llms.yaml"
    llms = "llms: {echo: {provider: scripted}}\n"
    for text, flags, expected in (
        ("", {}, ("127.0.0.1:1", "127.0.0.1:2")),
        ("monitoring: 127.0.0.1:3\nhealth: null\n", {}, ("127.0.0.1:3", None)),
        ("monitoring: 127.0.0.1:3\n", {"monitoring": "127.0.0.1:4"}, ("127.0.0.1:4", "127.0.0.1:2")),
    ):
        file.write_text(llms + text)
        settings = load_settings(file, flags)
        assert (settings.monitoring, settings.health) == expected


@pytest.mark.parametrize("key", ["monitoring", "health"])
async def test_an_address_of_the_environment_is_blamed_on_its_variable(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"ABSTRACTLLM_{key.upper()}"
    file = tmp_path / "llms.yaml"
    file.write_text("llms: {echo: {provider: scripted}}\n")
    monkeypatch.setenv(variable, "garbage")
    with pytest.raises(ConfigurationError, match=f"^{variable}: 'garbage' is not a valid address"):
        load_settings(file, {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(variable, "{}:{}".format(*taken.getsockname()))
        with pytest.raises(ConfigurationError, match=f"^{variable}: cannot listen on 127") as failure:
            async with serving():
                pass
        assert failure.value.field == variable


@pytest.mark.parametrize("key", ["monitoring", "health"])
async def test_localhost_is_all_of_its_addresses(key: str) -> None:
    async with monitored(**{key: "localhost:0"}) as served:
        monitor = served.server.monitor
        address = monitor.http_address if key == "monitoring" else monitor.health_address
        assert address.startswith("localhost:")
        for host in {info[4][0] for info in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}:
            with contextlib.suppress(OSError):  # a machine without IPv6
                socket.create_connection((host, int(address.rpartition(":")[2])), HANG).close()
        if key == "monitoring":
            assert (await served.get("/livez"))[0] == 200
        else:
            assert await served.check("liveness") == "SERVING"


# The event loop's heartbeat.


STOPPED = """
import asyncio, sys, time
from abstractllm_server.monitoring.heartbeat import LoopHeartbeat
async def main():
    heartbeat = LoopHeartbeat(1.0)
    heartbeat.start()
    print("started", flush=True)
    worst = 0.0
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        await asyncio.sleep(0.01)
        worst = max(worst, heartbeat.silence)
    print(worst, heartbeat.is_alive, flush=True)
asyncio.run(main())
"""


def test_time_in_which_the_process_is_stopped_does_not_count() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED, "4"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        process = psutil.Process(child.pid)
        process.suspend()
        time.sleep(3)
        process.resume()
        worst, is_alive = child.stdout.readline().split()
    assert float(worst) < 1.0
    assert is_alive == "True"


# The image's health check.


def health_check(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the check that the image has, with an environment of its own."""
    command = [sys.executable, "-I", str(repository / "deploy/image/healthcheck.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, env=environment)


async def test_health_check_of_the_image_asks_the_port_for_monitoring(repository: Path, tmp_path: Path) -> None:
    pair = Authority(tmp_path).sign("server")
    slow = Gated()
    async with monitored({"slow": slow}, tls={"certificate": pair.certificate, "key": pair.key}) as served:
        address = served.server.monitor.http_address
        # A model that still loads is no reason to be restarted.
        done = await asyncio.to_thread(health_check, repository, address)
        assert (done.returncode, done.stderr) == (0, "")
        done = await asyncio.to_thread(health_check, repository, ABSTRACTLLM_MONITORING=address)
        assert done.returncode == 0
        port = address.rpartition(":")[2]
        assert (await asyncio.to_thread(health_check, repository, f"0.0.0.0:{port}")).returncode == 0
        slow.gate.set()
    for dead in (address, served.server.address):
        done = await asyncio.to_thread(health_check, repository, dead)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{dead}: ConnectionRefusedError")
    assert "usage" in (await asyncio.to_thread(health_check, repository)).stderr


async def test_health_check_of_the_image_tells_a_blocked_server(repository: Path) -> None:
    heartbeat = LoopHeartbeat(1.0)
    heartbeat.silence = 2.0
    board = StatusBoard(lambda: {"liveness": HealthCheckResponse.SERVING}, heartbeat)
    with http_server(board, lambda accept: (b"", "")) as (_, address):
        done = await asyncio.to_thread(health_check, repository, address)
    assert (done.returncode, done.stderr) == (1, f"{address}: 503 the event loop is blocked\n")


def test_health_check_of_the_image_asks_where_the_server_of_the_image_listens(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text()
    assert "ABSTRACTLLM_MONITORING=127.0.0.1:9464" in text
    assert '"/opt/abstractllm/healthcheck.py"]' in text  # no address: that of the variable
