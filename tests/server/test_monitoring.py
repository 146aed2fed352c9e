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
import urllib.error
import urllib.request
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
        return Status(stub.Check(HealthCheckRequest(service=service), timeout=HANG).status)


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
        while asker.is_alive():  # the event loop is blocked meanwhile
            time.sleep(0.05)
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
        with pytest.raises(OSError):
            await served.get("/livez")


async def test_monitoring_answers_under_mutual_tls_without_a_certificate(tmp_path: Path) -> None:
    from tests.server.certificates import Authority

    authority = Authority(tmp_path)
    server, callers = authority.issue("server"), authority
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": callers.certificate}
    async with monitored(tls=tls | {"subjects": {"anyone": "admin"}}) as served:
        assert await served.get("/livez") == (200, "ok\n")
        assert await served.check("liveness") == "SERVING"
