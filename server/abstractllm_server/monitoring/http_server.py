"""The HTTP port for monitoring: `/metrics`, `/livez` and `/readyz`, plain and without credentials.

It has a thread and an event loop of its own, so that it answers while the server's is blocked. Whatever a client does
costs a bounded amount: of connections, of which the oldest makes room for a new one, of bytes and of time. Each
connection gets one answer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

from abstractllm_server.monitoring.status_board import StatusBoard
from abstractllm_server.transport.connections import monitoring_limit

__all__ = ["HttpServer", "RenderMetrics"]

logger = logging.getLogger("abstractllm.server")

RenderMetrics = Callable[[str], tuple[bytes, str]]
"""Returns the metrics and their content type, given the value of the header `Accept`; called from any thread."""

_CONNECTIONS = 64
"""Connections, as far as there are descriptors."""
_HEAD_BYTES = 8192
"""Bytes of a request's line and headers, at most."""
_READ_TIMEOUT, _WRITE_TIMEOUT = 5.0, 10.0
"""Seconds that a client has to send its request, and to read its answer."""
_LINGER_TIMEOUT, _LINGER_BYTES = 1.0, 65536
"""Seconds and bytes for what a client still sends after its answer: closed before, it might lose the answer."""
_RENDER_TIMEOUT = 8.0
"""Seconds that rendering the metrics may take; Prometheus itself waits for ten."""
_METRICS_AGE = 0.5
"""Seconds for which rendered metrics are given again: many who ask at once cost no more than one."""
_ACCEPT_HEADERS = 8
"""Different forms of the metrics that are kept."""
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, with_body: bool) -> bytes:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
            *self.headers,
        ]
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{name}: {value}" for name, value in headers)]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head + self.body if with_body else head


class HttpServer:
    """Answers GET and HEAD.

    Args:
        sockets: The sockets that it listens on; it closes them.
        board: The statuses of the services.
        render: Renders the metrics; None if there are none.
    """

    def __init__(self, sockets: Sequence[socket.socket], board: StatusBoard, render: RenderMetrics | None) -> None:
        self._sockets = sockets
        self._board = board
        self._render = render
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = threading.Event()
        self._end: asyncio.Event | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        """The open connections, in the order in which they came, and the tasks that answer them."""
        self._limit = monitoring_limit(_CONNECTIONS)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._rendered: dict[str, tuple[float, asyncio.Future[tuple[bytes, str]]]] = {}

    def run(self) -> None:
        """Serves in the calling thread, until `stop`."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """Ends `run`, from any thread, and closes the sockets."""
        self._stopped.set()
        if self._loop is not None and self._end is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._end.set)
        for one in self._sockets:
            one.close()
        self._renderer.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._connections.clear()
        self._rendered.clear()
        if self._stopped.is_set():
            return
        # Copies: when this fails it is started again, with the same sockets.
        servers = [
            await asyncio.start_server(self._take, sock=one.dup(), limit=_HEAD_BYTES, backlog=_CONNECTIONS)
            for one in self._sockets
        ]
        await self._end.wait()
        for server in servers:
            server.close()
        for writer in self._connections:
            writer.transport.abort()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a new connection, for which the oldest may have to make room."""
        if len(self._connections) >= self._limit:
            oldest = next(iter(self._connections))
            self._connections.pop(oldest)
            oldest.transport.abort()
        self._connections[writer] = asyncio.create_task(self._answer(reader, writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # What a client asks for, or fails to, is nothing to log.
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._talk(reader, writer)
        except Exception:
            logger.exception("a request to the monitoring port failed")
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        method = "GET"
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            answer = _Answer(status, f"a request may have {_HEAD_BYTES} bytes of headers\n".encode())
        else:
            method, answer = await self._answer_to(head.decode("latin-1"))
        writer.write(answer.encode(with_body=method != "HEAD"))
        async with asyncio.timeout(_WRITE_TIMEOUT):
            await writer.drain()
        writer.write_eof()
        received = 0
        async with asyncio.timeout(_LINGER_TIMEOUT):
            while received < _LINGER_BYTES and (data := await reader.read(_HEAD_BYTES)):
                received += len(data)

    async def _answer_to(self, head: str) -> tuple[str, _Answer]:
        """Returns the method of a request, and the answer to it."""
        line, *headers = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", _Answer(HTTPStatus.BAD_REQUEST, b"not a request of HTTP/1.1\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            allow = (("Allow", "GET, HEAD"),)
            return method, _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", headers=allow)
        try:
            url = urlsplit(target)
        except ValueError:
            return method, _Answer(HTTPStatus.BAD_REQUEST, b"not a valid URL\n")
        match unquote(url.path):
            case "/livez":
                return method, self._liveness()
            case "/readyz":
                llms = parse_qs(url.query, keep_blank_values=True, max_num_fields=None).get("llm", [""])
                return method, self._readiness(llms[-1])
            case "/metrics":
                accept = next((value for name, value in map(_header, headers) if name == "accept"), "")
                return method, await self._metrics(accept)
        return method, _Answer(HTTPStatus.NOT_FOUND, b"there are /metrics, /livez and /readyz\n")

    def _liveness(self) -> _Answer:
        if self._board.is_serving("liveness"):
            return _Answer(HTTPStatus.OK, b"ok\n")
        return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the event loop is blocked\n")

    def _readiness(self, llm: str) -> _Answer:
        is_serving = self._board.is_serving(f"llm/{llm}" if llm else "")
        if is_serving is None:
            return _Answer(HTTPStatus.NOT_FOUND, b"there is no such LLM\n")
        if is_serving:
            return _Answer(HTTPStatus.OK, b"ok\n")
        return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the LLM cannot answer now\n")

    async def _metrics(self, accept: str) -> _Answer:
        if self._render is None:
            return _Answer(HTTPStatus.NOT_FOUND, b"metrics are switched off\n")
        assert self._loop is not None
        now = time.monotonic()
        made_at, rendering = self._rendered.get(accept, (0.0, None))
        if rendering is None or (rendering.done() and now - made_at > _METRICS_AGE):
            rendering = self._loop.run_in_executor(self._renderer, self._render, accept)
            self._rendered.pop(accept, None)
            self._rendered[accept] = now, rendering
            if len(self._rendered) > _ACCEPT_HEADERS:
                del self._rendered[next(iter(self._rendered))]
        try:
            async with asyncio.timeout(_RENDER_TIMEOUT):
                body, content_type = await asyncio.shield(rendering)
        except TimeoutError:
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"the metrics take too long\n")
        except Exception:
            self._rendered.pop(accept, None)
            logger.exception("the metrics cannot be rendered")
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the metrics cannot be rendered\n")
        return _Answer(HTTPStatus.OK, body, content_type)


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()
