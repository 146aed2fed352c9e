"""Row 32: connections that say nothing.

Pass mark: with a limit of 256 file descriptors, 400 silent connections (of TCP, of HTTP/2 that greets and no more,
and of TLS that does not shake hands) leave room: a newcomer is served within two seconds, and so is a caller who is
already there.
Load: 400 connections, held for fifteen seconds, four times.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc

from abstractllm_api.v1 import generation_pb2_grpc
from tests.reliability.caller import calling
from tests.reliability.calls import request, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection
from tests.reliability.server_process import ServerProcess, serving
from tests.server.certificates import Authority

_DESCRIPTORS = 256
_LIMIT = 2.0


async def measure(setting: Setting) -> Figures:
    """Opens silent connections of each kind; in between newcomers call."""
    figures = setting.figures()
    authority = Authority(setting.folder)
    pair = authority.sign("server")
    tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
    root = authority.pair.certificate
    kinds = ["TCP", "HTTP/2"] if setting.full else ["TCP"]
    async with serving(setting.folder / "plain", descriptors=_DESCRIPTORS) as server:
        for kind in kinds:
            await _silence(setting, figures, server, kind)
    async with serving(
        setting.folder / "tls",
        descriptors=_DESCRIPTORS,
        tls=tls,
        credentials=grpc.ssl_channel_credentials(root.read_bytes()),
    ) as server:
        await _silence(setting, figures, server, "TLS", root)
    return figures


async def _silence(
    setting: Setting, figures: Figures, server: ServerProcess, kind: str, root: Path | None = None
) -> None:
    async with calling(server.address, root=root, interval=0.1) as good:
        slowest, failures = 0.0, 0
        with _sockets(0 if kind == "HTTP/2" else 400, server.address):
            opened = await _greeting(400 if kind == "HTTP/2" else 0, server.address)
            end = time.monotonic() + setting.load(15, 3)
            while time.monotonic() < end:
                began = time.monotonic()
                async with server.channel() as newcomer:
                    call = generation_pb2_grpc.GenerationServiceStub(newcomer).Generate(
                        request(), timeout=5, wait_for_ready=True
                    )
                    failures += (await unary(call)).code != "OK"
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.2)
            for connection in opened:
                await connection.close()
        met = await good.stop()
    figures.equal(f"{kind}: newcomers not served", failures, 0)
    figures.at_most(f"{kind}: the slowest newcomer", slowest, _LIMIT, "s")
    figures.equal(f"{kind}: errors of a caller who was there", met.errors, {})
    await asyncio.sleep(0.5)


@contextlib.contextmanager
def _sockets(count: int, address: str) -> Iterator[None]:
    """Holds connections open that send nothing."""
    host, _, port = address.rpartition(":")
    opened = []
    try:
        for _ in range(count):
            one = socket.socket()
            opened.append(one)
            one.settimeout(0.2)
            # Beyond the listener's backlog a connection waits; that is a silent one too.
            with contextlib.suppress(OSError):
                one.connect((host, int(port)))
        yield
    finally:
        for one in opened:
            one.close()


async def _greeting(count: int, address: str) -> list[RawConnection]:
    """Returns connections that send their greeting, and nothing after it."""
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError, TimeoutError):
            opened.append(await asyncio.wait_for(RawConnection.open(address), 0.5))
    return opened


ROW = Row(
    numbers=(32,),
    title="400 silent connections with a limit of 256 descriptors: TCP, HTTP/2, TLS",
    pass_mark="a newcomer is served within 2 s",
    measure=measure,
)
