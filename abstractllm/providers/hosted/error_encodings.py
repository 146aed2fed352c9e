"""Unpacking the bodies of errors, which some servers compress though nobody asked for it."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["decoded"]

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""The first bytes of a body whose encoding is not declared."""


def decoded(stream: Any, encoding: str, limit: int) -> Any:
    """Returns a stream of an error's unpacked bytes, as far as they can be unpacked; never more than `limit`.

    A body that is packed in a way that cannot be undone here is replaced by words that say so.

    Args:
        stream: The body as it comes.
        encoding: The `Content-Encoding` header.
        limit: The most bytes.
    """
    return _DecodedStream(stream, [name for name in encoding.lower().replace(" ", "").split(",") if name], limit)


class _DecodedStream:
    def __init__(self, stream: Any, encodings: list[str], limit: int) -> None:
        self._stream = stream
        self._encodings = encodings
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = bytearray()
        async for chunk in self._stream:
            body += chunk
            if len(body) >= self._limit:
                break
        yield self._unpacked(bytes(body[: self._limit]))

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _unpacked(self, body: bytes) -> bytes:
        encodings = [name.removeprefix("x-") for name in self._encodings if name != "identity"]
        if not encodings:
            encodings = [name for magic, name in _MAGIC.items() if body.startswith(magic)]
        for encoding in reversed(encodings):
            if body[:1] in (b"{", b"[", b"<"):
                return body  # declared, but not packed
            try:
                if encoding not in ("gzip", "deflate"):
                    raise ValueError("only gzip and deflate can be")
                body = _inflate(body, self._limit)
            except (ValueError, zlib.error) as error:
                return f"the error's text is packed as {encoding[:40]!r} and cannot be read: {error}".encode()
        return body


def _inflate(body: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, limit)
    except zlib.error:  # "deflate" without its header, as some servers send it
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, limit)
