"""The limits of an HTTP client: timeouts, connections, and the bytes that a hostile or broken server can send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

from abstractllm._core.tracing import inject
from abstractllm.errors import ProviderProtocolError
from abstractllm.providers.hosted.error_encodings import decoded

__all__ = ["MAX_BODY_BYTES", "MAX_ERROR_BYTES", "MAX_RECORD_BYTES", "http_arguments"]

MAX_BODY_BYTES = 256 * 2**20
"""Bytes of one answer at most, as it comes over the wire."""
MAX_RECORD_BYTES = 8 * 2**20
"""Bytes of one line at most; in an event stream, of one event."""
MAX_ERROR_BYTES = 2**20
"""Bytes that are read of an error's body; the rest is cut off."""
CONNECT_TIMEOUT = 10.0
KEEPALIVE_EXPIRY = 30.0


def http_arguments(httpx: ModuleType, *, timeout: float, max_connections: int) -> dict[str, Any]:
    """Returns the arguments for an `AsyncClient` of `httpx` or `httpx2`.

    Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`), as these clients do by themselves. Redirects
    are not followed: they would carry the key to another host. Compressed answers are neither asked for nor taken, so
    no few bytes can unpack into many; of an error that comes compressed all the same, its first mebibyte is read.

    Args:
        httpx: The module `httpx` or `httpx2`.
        timeout: Seconds without a byte after which a connection is given up.
        max_connections: Connections that are kept for further requests at most; how many are in use at once is limited
            by the LLM's `AdmissionGate`, which also knows the requests of other event loops and configurations.
    """
    capped = type("CappedStream", (_CappedStream, httpx.AsyncByteStream), {})

    async def cap(response: Any) -> None:
        encoding = response.headers.pop("content-encoding", "identity")
        failed = response.status_code >= 300
        if encoding.lower() not in ("", "identity") and not failed:
            raise ProviderProtocolError(
                f"the answer has the content encoding {encoding[:40]!r}, which was not asked for",
                upstream_status=response.status_code,
            )
        events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        response.stream = capped(
            decoded(response.stream, encoding, MAX_ERROR_BYTES) if failed else response.stream,
            # Two ends of lines in a row, of whatever kinds; CR and LF are one.
            marks=(b"\n\n", b"\r\r", b"\n\r") if events else (b"\n", b"\r"),
            cut_at=MAX_ERROR_BYTES if failed else None,
        )

    async def continue_trace(request: Any) -> None:
        inject(request.headers)

    return {
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        "limits": httpx.Limits(
            max_connections=None,
            max_keepalive_connections=max_connections,
            keepalive_expiry=KEEPALIVE_EXPIRY,
        ),
        "follow_redirects": False,
        "headers": {"Accept-Encoding": "identity"},
        "event_hooks": {"request": [continue_trace], "response": [cap]},
    }


class _CappedStream:
    """The bytes of a response, passed on until there are too many of them.

    Args:
        stream: The response's own stream.
        marks: The ends of a record; the SDK would put a record together in memory, however long it is.
        cut_at: The bytes after which an error's body is cut off; for None too many bytes are an error.
    """

    def __init__(self, stream: Any, *, marks: tuple[bytes, ...], cut_at: int | None) -> None:
        self._stream = stream
        self._marks = marks
        self._cut_at = cut_at
        self._total = 0
        self._record = 0
        self._tail = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._total += len(chunk)
            if self._cut_at is not None and self._total > self._cut_at:
                yield chunk[: self._cut_at - self._total]
                return
            self._check(chunk)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _check(self, chunk: bytes) -> None:
        window = self._tail + chunk
        ends = [at + len(mark) for mark in self._marks if (at := window.rfind(mark)) >= 0]
        self._record = len(window) - max(ends) if ends else self._record + len(chunk)
        # A mark may lie across two chunks.
        self._tail = window[-3:]
        for size, limit, subject in (
            (self._record, MAX_RECORD_BYTES, "a line or event of the answer"),
            (self._total, MAX_BODY_BYTES, "the answer"),
        ):
            if size > limit:
                raise ProviderProtocolError(
                    f"{subject} is longer than {limit} bytes",
                    limit=f"{limit} bytes",
                    requested=f"at least {size} bytes",
                )
