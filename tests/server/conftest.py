"""The fixtures of the server's tests; see `support.py`."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.support import HANG, Serving, serving


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own: none lists or clears the user's model cache."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    """A server with one scripted LLM, `echo`, that says what it is told."""
    async with serving() as running:
        yield running


@pytest.fixture
async def deaf_watcher() -> AsyncIterator[Any]:
    """Opens a Watch whose client, by HTTP/2 flow control, takes not one byte of the answer."""
    writers = []

    async def watch(address: str) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": b"/grpc.health.v1.Health/Watch",
            b":authority": b"localhost",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
        }
        # HPACK: literal fields without indexing, names and values as plain octets.
        block = b"".join(b"\x00%c%b%c%b" % (len(name), name, len(value), value) for name, value in headers.items())
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        writer.write(_frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00"))  # SETTINGS_INITIAL_WINDOW_SIZE = 0
        writer.write(_frame(1, 4, 1, block))
        writer.write(_frame(0, 1, 1, b"\x00\x00\x00\x00\x00"))
        await writer.drain()
        # The answer's headers come, its first message cannot.
        async with asyncio.timeout(HANG):
            while b"application/grpc" not in await reader.read(65_536):
                pass

    yield watch
    for writer in writers:
        writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
