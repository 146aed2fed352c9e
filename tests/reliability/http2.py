"""Raw HTTP/2: frames as an attacker writes them, with a flow control that nobody opens unless told to.

https://www.rfc-editor.org/rfc/rfc9113 for the frames, https://www.rfc-editor.org/rfc/rfc7541 for the header blocks.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE, _DEFAULT_WINDOW = 4, 65_535
_LARGEST_WINDOW = 2**31 - 1
_LARGEST_FRAME = 16_384
_CANCEL = 8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block(method: str, token: str | None = None, **fields: str) -> bytes:
    """Returns the headers of a gRPC call, each as a literal that is put into no table.

    Args:
        method: Its path, such as `/grpc.health.v1.Health/Check`.
        token: The caller's token.
        **fields: Further headers; `_` stands for `-`.
    """
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    } | {name.replace("_", "-"): value for name, value in fields.items()}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def message(payload: bytes, compressed: bool = False) -> bytes:
    """Returns a gRPC message with its prefix."""
    return bytes((compressed,)) + len(payload).to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    octets = text.encode()
    if len(octets) < 127:
        return bytes((len(octets),)) + octets
    rest, length = len(octets) - 127, b"\x7f"
    while rest >= 128:
        length, rest = length + bytes((rest % 128 | 128,)), rest // 128
    return length + bytes((rest,)) + octets


_LONGEST_DRAIN = 5.0
"""Seconds."""


class RawConnection:
    """One HTTP/2 connection, from the side of the caller.

    Args:
        window: The bytes that each stream may send before it must be allowed more.

    Attributes:
        ended: The streams that the server has ended, each with its headers and trailers; those it reset have
            `rst-stream`, the error code.
        received: The bytes of messages that have come.
        is_closed: True once the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int) -> None:
        self.ended: dict[int, dict[str, str]] = {}
        self.received = 0
        self.is_closed = False
        self._headers: dict[int, dict[str, str]] = {}
        self._reader, self._writer = reader, writer
        self._next_stream = 1
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = 65_536
        self._changed = asyncio.Condition()
        self._stream_window = self._connection_window = _DEFAULT_WINDOW
        self._stream_windows: dict[int, int] = {}
        self._opens_windows = window == _LARGEST_WINDOW
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)
        self._writer.write(_PREFACE + frame(_SETTINGS, 0, 0, settings))
        if self._opens_windows:
            self._writer.write(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW)))
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: str, window: int = _LARGEST_WINDOW, tls: ssl.SSLContext | None = None) -> Self:
        """Connects to `HOST:PORT`, or to the path of a unix socket."""
        if address.startswith("unix:"):
            reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:").removeprefix("//"))
        else:
            host, _, port = address.rpartition(":")
            name = "localhost" if tls else None
            reader, writer = await asyncio.open_connection(host.strip("[]"), port, ssl=tls, server_hostname=name)
        return cls(reader, writer, window)

    @property
    def stream_window(self) -> int:
        """The bytes that a new stream may send before the server allows more."""
        return self._stream_window

    def start(self, block: bytes, *, ends: bool = False) -> int:
        """Sends a stream's headers, and, if it `ends` there, nothing more; returns the stream's number."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._writer.write(frame(_HEADERS, _END_HEADERS | (_END_STREAM if ends else 0), stream, block))
        return stream

    def reset(self, stream: int) -> None:
        """Gives a stream up."""
        self._writer.write(frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))

    def unary(self, block: bytes, payload: bytes) -> int:
        """Sends a whole call with a small message, without regard to the server's flow control."""
        stream = self.start(block)
        self._writer.write(frame(_DATA, _END_STREAM, stream, message(payload)))
        return stream

    async def send(self, stream: int, octets: bytes, *, ends: bool = True) -> None:
        """Sends a stream's data as fast as the server's flow control allows.

        Raises:
            ConnectionError: If the server closed the connection.
        """
        position = 0
        while position < len(octets) and stream not in self.ended:
            async with self._changed:
                await self._changed.wait_for(lambda: self.is_closed or stream in self.ended or self._room(stream) > 0)
            if self.is_closed:
                raise ConnectionResetError("the server closed the connection")
            if stream in self.ended:
                return
            piece = octets[position : position + min(self._room(stream), _LARGEST_FRAME)]
            position += len(piece)
            self._connection_window -= len(piece)
            self._stream_windows[stream] = self._stream_windows.get(stream, self._stream_window) - len(piece)
            self._writer.write(frame(_DATA, _END_STREAM if ends and position == len(octets) else 0, stream, piece))
            await self._writer.drain()

    async def drain(self) -> None:
        """Waits until the server has taken what was written, or has closed the connection, for a while."""
        # The system may keep a connection that the server has closed half open, and say nothing.
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_LONGEST_DRAIN):
                await self._writer.drain()

    async def until_ended(self, count: int, timeout: float) -> int:
        """Waits until so many streams have ended, or the connection has; returns the number of those that ended."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.is_closed or len(self.ended) >= count)
        except TimeoutError:
            pass
        return len(self.ended)

    async def close(self) -> None:
        """Breaks the connection off."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _room(self, stream: int) -> int:
        return min(self._connection_window, self._stream_windows.get(stream, self._stream_window))

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                self._handle(kind, flags, stream, payload)
                if kind != _DATA:
                    async with self._changed:
                        self._changed.notify_all()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.is_closed = True
            async with self._changed:
                self._changed.notify_all()

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case 0:
                self.received += len(payload)
                if flags & _END_STREAM:
                    self._end(stream, {})
                if self._opens_windows and payload:
                    opened = struct.pack(">I", len(payload))
                    self._writer.write(frame(_WINDOW_UPDATE, 0, 0, opened) + frame(_WINDOW_UPDATE, 0, stream, opened))
            case 1:
                headers = {str(name): str(value) for name, value in self._decoder.decode(payload, raw=False)}
                self._headers.setdefault(stream, {}).update(headers)
                if flags & _END_STREAM:
                    self._end(stream, {})
            case 3:
                self._end(stream, {"rst-stream": str(int.from_bytes(payload, "big"))})
            case 4 if not flags & _ACK:
                for name, value in struct.iter_unpack(">HI", payload):
                    if name == _INITIAL_WINDOW_SIZE:
                        for other in self._stream_windows:
                            self._stream_windows[other] += value - self._stream_window
                        self._stream_window = value
                self._writer.write(frame(_SETTINGS, _ACK, 0))
            case 6 if not flags & _ACK:
                self._writer.write(frame(_PING, _ACK, 0, payload))
            case 8:
                increment = int.from_bytes(payload, "big")
                if stream:
                    self._stream_windows[stream] = self._stream_windows.get(stream, self._stream_window) + increment
                else:
                    self._connection_window += increment

    def _end(self, stream: int, facts: Mapping[str, str]) -> None:
        # A server may reset a stream after its trailers, to say that it reads no more of it.
        if stream not in self.ended:
            self.ended[stream] = self._headers.pop(stream, {}) | dict(facts)
