"""A small HTTP/1.1 server for tests, on which a function plays a provider: well, badly, or not at all."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HANG = 20.0
"""Seconds after which a test counts as hanging."""
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}


@dataclass
class Received:
    """A request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """A request and the answer to it."""

    def __init__(self, request: Received, writer: asyncio.StreamWriter, left: "asyncio.Task[bytes]") -> None:
        self.request = request
        self._writer = writer
        self._left = left
        self.keep_alive = True

    async def respond(
        self, body: bytes | str | dict[str, Any] | list[Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answers with a whole body; one that is no text or bytes is sent as JSON."""
        if isinstance(body, dict | list):
            headers = {"Content-Type": "application/json"} | (headers or {})
            body = json.dumps(body)
        payload = body.encode() if isinstance(body, str) else body
        self._head(status, {"Content-Length": str(len(payload))} | (headers or {}))
        self._writer.write(payload)
        await self._writer.drain()

    async def start(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Begins an answer whose body comes in pieces, an event stream unless the headers say otherwise."""
        self._head(status, {"Transfer-Encoding": "chunked"} | (EVENT_STREAM if headers is None else headers))
        await self._writer.drain()

    async def send(self, piece: bytes | str) -> None:
        """Sends a piece of the body, once the client has read enough of what came before."""
        payload = piece.encode() if isinstance(piece, str) else piece
        self._writer.write(b"%x\r\n%b\r\n" % (len(payload), payload))
        await self._writer.drain()

    async def end(self) -> None:
        """Ends a body that came in pieces, as it should end."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def reset(self) -> None:
        """Breaks the connection off."""
        self.keep_alive = False
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Waits until the client has closed the connection.

        Raises:
            TimeoutError: If it does not.
        """
        async with asyncio.timeout(HANG):
            await asyncio.wait([self._left])
        assert self._left.result() == b""

    def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Some Reason", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class FakeServer:
    """A running server."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    """The number of connections that were ever made."""
    open: int = 0
    """The number of those that are open now."""
    most_open: int = 0
    running: int = 0
    """The number of requests that are being answered now."""
    most_running: int = 0
    faults: list[BaseException] = field(default_factory=list)
    """The errors of the function that plays the provider; a client that left is not counted."""

    async def settled(self, connections: int = 0) -> None:
        """Waits until no request is being answered and only so many connections are open.

        Raises:
            TimeoutError: If that does not come.
        """
        async with asyncio.timeout(HANG):
            while self.running or self.open > connections:  # noqa: ASYNC110 - both change in many places
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[FakeServer]:
    """Serves `handler` on a free port of the loopback interface."""
    fake = FakeServer()
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        fake.connections += 1
        fake.open += 1
        fake.most_open = max(fake.most_open, fake.open)
        try:
            await _converse(fake, handler, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        except Exception as error:
            fake.faults.append(error)
        finally:
            fake.open -= 1
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**26)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not fake.faults, fake.faults


async def _converse(
    server: FakeServer, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    early = b""
    while True:
        head = early + await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        server.requests.append(Received(method, path, headers, body))
        left = asyncio.create_task(reader.read(1))
        exchange = Exchange(server.requests[-1], writer, left)
        server.running += 1
        server.most_running = max(server.most_running, server.running)
        try:
            await handler(exchange)
        finally:
            server.running -= 1
            if not left.done():
                left.cancel()
            (next_byte,) = await asyncio.gather(left, return_exceptions=True)
        if isinstance(next_byte, Exception) or next_byte == b"" or not exchange.keep_alive:
            return
        early = next_byte if isinstance(next_byte, bytes) else b""


def in_turn(*handlers: Handler) -> Handler:
    """Each request is answered by the next of `handlers`, those after the last by the last."""
    left = list(handlers)

    async def handle(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return handle


def answering(
    body: bytes | str | dict[str, Any] | list[Any], status: int = 200, headers: dict[str, str] | None = None
) -> Handler:
    """Answers every request with the same."""

    async def handle(exchange: Exchange) -> None:
        await exchange.respond(body, status, headers)

    return handle


def streaming(
    pieces: Iterable[bytes | str], *, then: str = "end", headers: dict[str, str] | None = None, status: int = 200
) -> Handler:
    """Streams pieces, made only as fast as the client reads them.

    Args:
        pieces: The body's pieces; the iterable is used up by the first request unless it can be iterated again.
        then: `end` ends the body well, `close` and `reset` break off, `hang` waits until the client leaves.
        headers: The answer's headers; those of an event stream if absent.
        status: The answer's status.
    """

    async def handle(exchange: Exchange) -> None:
        await exchange.start(status, headers)
        for piece in pieces:
            await exchange.send(piece)
        match then:
            case "end":
                await exchange.end()
            case "close":
                exchange.keep_alive = False
            case "reset":
                await asyncio.sleep(0.05)  # lets the pieces arrive: a reset discards what is still on its way
                exchange.reset()
            case "hang":
                await exchange.gone()
            case _:
                raise AssertionError(then)

    return handle


async def hanging(exchange: Exchange) -> None:
    """Reads the request and never answers."""
    await exchange.gone()


async def resetting(exchange: Exchange) -> None:
    """Breaks the connection off instead of answering."""
    exchange.reset()


def gibibyte(prefix: bytes = b"", piece: bytes = b"x" * 65536) -> Iterable[bytes]:
    """A line of 1 GiB, piece by piece."""
    if prefix:
        yield prefix
    for _ in range(2**30 // len(piece)):
        yield piece


def gzip_bomb(size: int = 2**30) -> Iterable[bytes]:
    """White space that unpacks to `size` bytes, about a thousandth of it compressed."""
    compress = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b" " * 2**20
    yield compress.compress(block) + compress.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block depends on none before it, so the same bytes can come again and again.
    again = compress.compress(block) + compress.flush(zlib.Z_FULL_FLUSH)
    for _ in range(size // len(block) - 1):
        yield again
