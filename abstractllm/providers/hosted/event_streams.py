"""Reading event streams, and lines of JSON, from the bytes of an answer.

The SDKs have readers of their own, and each departs from the standard: lines of JSON are split at characters that JSON
may hold, a byte order mark counts as text, events without data or without a name are taken for broken ones or passed
over, the last event is lost where no empty line ends it. Here event streams are read as the standard says
(https://html.spec.whatwg.org/multipage/server-sent-events.html), with one exception: an event that the end of the
stream leaves without its empty line is not thrown away, since many servers end so.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from abstractllm.errors import ProviderProtocolError
from abstractllm.providers.hosted.limits import MAX_RECORD_BYTES

__all__ = [
    "EventStreamParser",
    "ServerSentEvent",
    "drain",
    "parse_json",
    "parse_json_values",
    "read_events",
    "read_json_lines",
    "whole_json",
]

_DECODER = json.JSONDecoder(strict=False)
_WHITE_SPACE = b" \t\r\n"
DRAIN_TIMEOUT = 1.0
"""Seconds that the end of a complete answer is waited for."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of an event stream."""

    data: str
    name: str = ""
    """The event's type; empty where the stream gives none, which stands for `message`."""
    is_cut: bool = False
    """True if the stream ended before the empty line that ends an event: a part of it may be missing."""

    def fault(self, error: Exception) -> str:
        """Returns the words for data that cannot be read.

        Args:
            error: The error that reading it ended in.
        """
        hint = "; it holds bytes that are no Unicode" if "\N{REPLACEMENT CHARACTER}" in self.data else ""
        return f"{type(error).__name__}: {str(error)[:200]}{hint}"


class EventStreamParser:
    """Makes events of bytes, however these are cut into pieces."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """The pieces of the line that has not ended yet."""
        self._line_size = 0
        self._data: list[str] = []
        self._data_size = 0
        self._name = ""
        self._is_first_line = True
        self._skips_line_feed = False

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Takes the next bytes, and yields the events that they complete.

        Raises:
            ProviderProtocolError: If a line, or an event, is longer than `MAX_RECORD_BYTES`.
        """
        if self._skips_line_feed and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._skips_line_feed = False
        if not chunk:
            return
        self._skips_line_feed = chunk.endswith(b"\r")
        lines = chunk.splitlines()  # bytes are split at CR, LF and CRLF alone
        rest = b"" if chunk.endswith((b"\r", b"\n")) else lines.pop()
        for line in lines:
            self._line.append(line)
            yield from self._end_line()
        if rest:
            self._line.append(rest)
            self._line_size += len(rest)
            _check_size(self._line_size)

    def end(self) -> Iterator[ServerSentEvent]:
        """Yields the event that the end of the stream has cut off, if there is one."""
        if self._line:
            yield from self._end_line()
        yield from self._dispatch(is_cut=True)

    def _end_line(self) -> Iterator[ServerSentEvent]:
        line = b"".join(self._line)
        self._line, self._line_size = [], 0
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line:
            yield from self._dispatch()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data.append(value.decode("utf-8", "replace"))
                self._data_size += len(value) + 1
                _check_size(self._data_size)
            case b"event":
                self._name = value.decode("utf-8", "replace")
            # `id` and `retry` serve to connect again, which is never done; comments and unknown fields say nothing.

    def _dispatch(self, is_cut: bool = False) -> Iterator[ServerSentEvent]:
        data, name = self._data, self._name
        self._data, self._data_size, self._name = [], 0, ""
        if data:
            yield ServerSentEvent("\n".join(data), name, is_cut)


def parse_json(text: str | bytes) -> Any:
    """Returns what JSON makes of a text; control characters that JSON wants escaped are taken as they are.

    Raises:
        ValueError, RecursionError: If it is none.
    """
    text = text.decode("utf-8-sig", "replace") if isinstance(text, bytes) else text
    value: Any = _DECODER.decode(text)
    return value


def parse_json_values(body: bytes) -> list[Any]:
    """Returns the JSON value that a body is, or those of its lines: a stream without the marks of an event stream.

    Raises:
        ValueError, RecursionError: If it is neither.
    """
    try:
        return [parse_json(body)]
    except ValueError as error:
        try:
            return [parse_json(line) for line in body.split(b"\n") if line.strip(_WHITE_SPACE)]
        except ValueError:
            raise error from None


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[ServerSentEvent, None]:
    """Yields the events of an event stream.

    Raises:
        ProviderProtocolError: If a line, or an event, is longer than `MAX_RECORD_BYTES`.
    """
    parser = EventStreamParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
    for event in parser.end():
        yield event


async def read_json_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
    """Yields the values of lines of JSON; lines end with a line feed alone, and empty ones are passed over.

    A last line that the end of the bytes has cut off is left out.

    Raises:
        ValueError, RecursionError: If another line is no JSON.
        ProviderProtocolError: If a line is longer than `MAX_RECORD_BYTES`.
    """
    pieces: list[bytes] = []
    size, is_first = 0, True
    async for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            line = b"".join((*pieces, line))
            pieces, size = [], 0
            _check_size(len(line))
            if is_first:
                line, is_first = line.removeprefix(codecs.BOM_UTF8), False
            if line.strip(_WHITE_SPACE):
                yield parse_json(line)
        pieces.append(rest)
        size += len(rest)
        _check_size(size)
    line = b"".join(pieces)
    if is_first:
        line = line.removeprefix(codecs.BOM_UTF8)
    if line.strip(_WHITE_SPACE):
        try:
            value = parse_json(line)
        except ValueError:
            if is_first:
                raise
            return
        yield value


async def whole_json(chunks: AsyncIterator[bytes]) -> tuple[bytes | None, AsyncGenerator[bytes, None]]:
    """Tells an answer that is one JSON value from a stream, by how it begins: headers are often wrong.

    Args:
        chunks: The answer's bytes.

    Returns:
        All bytes of a JSON object or array, else None; and the bytes of a stream, from its beginning, else nothing.
    """
    beginning: list[bytes] = []
    is_json = False
    async for chunk in chunks:
        beginning.append(chunk)
        text = b"".join(beginning).removeprefix(codecs.BOM_UTF8).lstrip(_WHITE_SPACE)
        if text:
            is_json = text.startswith((b"{", b"["))
            break
    body = b"".join([*beginning, *[chunk async for chunk in chunks]]) if is_json else None

    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in beginning if body is None else ():
            yield chunk
        async for chunk in chunks:
            yield chunk

    return body, stream()


async def drain(rest: AsyncIterator[Any]) -> None:
    """Reads the end of an answer that is complete, so that its connection can be used again.

    Whatever goes wrong here does not matter any more.
    """
    with suppress(Exception):
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in rest:
                pass


def _check_size(size: int) -> None:
    if size > MAX_RECORD_BYTES:
        raise ProviderProtocolError(
            f"a line or event of the answer is longer than {MAX_RECORD_BYTES} bytes",
            limit=f"{MAX_RECORD_BYTES} bytes",
            requested=f"at least {size} bytes",
        )
