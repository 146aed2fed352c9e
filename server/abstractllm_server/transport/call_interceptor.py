"""What happens around every call: refusal while draining, errors to statuses, nothing leaked, nothing left running."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from grpc import aio

from abstractllm.errors import (
    AbstractLLMError,
    ErrorReason,
    GenerationTimeoutError,
    InternalError,
    InvalidRequestError,
    ServerShuttingDownError,
)
from abstractllm_server.convert.errors import status_of
from abstractllm_server.transport.limits import MAX_MESSAGE_BYTES

__all__ = ["CallInterceptor"]

logger = logging.getLogger("abstractllm.server")

_LAST_WORDS = 5.0
"""Seconds that a status may take to get away."""
_UNGUARDED = ("/grpc.health.v1.", "/grpc.reflection.")


class CallInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Wraps every handler but those of health and reflection, which keep answering while the server drains.

    Handlers raise the library's errors and contain no `try`; this turns them into statuses. It also knows the calls
    that run, so that the server can wait for them, and end them, when it stops; and it ends those whose caller does not
    read, so that nothing works for them.

    Args:
        write_timeout: Seconds that one message of a stream may wait for its reader.
    """

    def __init__(self, write_timeout: float) -> None:
        self._write_timeout = write_timeout
        self._draining = False
        self._expired = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writing: dict[asyncio.Task[Any], float] = {}
        """The calls that wait for their reader, and since when: the longest first."""
        self._unread: set[asyncio.Task[Any]] = set()
        """Those that have waited too long."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """How many calls run."""
        return len(self._tasks)

    async def drain(self, grace: float) -> None:
        """Refuses new calls, lets the running ones go on for `grace` seconds, then ends them with SHUTTING_DOWN."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks.copy(), timeout=grace)
        self._expired = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.copy(), timeout=0.5)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called by grpc for each call, before its message arrives."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_UNGUARDED):
            return handler
        decode = _decoder(handler.request_deserializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary), decode, handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            self._stream(handler.unary_stream), decode, handler.response_serializer
        )

    def _unary(self, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            task = self._enter()
            try:
                self._admit(request)
                return _sendable(await handle(request, context))
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)

        return guarded

    def _stream(self, handle: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Awaitable[None]]:
        async def guarded(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            task = self._enter()
            try:
                self._admit(request)
                async with aclosing(handle(request, context)) as responses:
                    async for response in responses:
                        self._watch(task)
                        await context.write(_sendable(response))
                        del self._writing[task]
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)
                self._writing.pop(task, None)
                self._unread.discard(task)

        return guarded

    def _watch(self, task: asyncio.Task[Any]) -> None:
        """Notes that a call begins to write. One timer serves all calls: one for each message would cost too much."""
        loop = asyncio.get_running_loop()
        self._writing[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._write_timeout, self._end_unread)

    def _end_unread(self) -> None:
        """Ends the calls that have waited too long, and looks again when the next one will have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._write_timeout
        for task, since in self._writing.items():
            if since > latest:
                self._timer = loop.call_later(since - latest, self._end_unread)
                return
            if task not in self._unread:
                self._unread.add(task)
                task.cancel()

    def _enter(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def _admit(self, request: Any) -> None:
        if self._draining:
            raise ServerShuttingDownError("the server is shutting down")
        if isinstance(request, InvalidRequestError):
            raise request

    async def _end(self, error: BaseException, request: Any, context: aio.ServicerContext[Any, Any]) -> NoReturn:
        """Ends the call with the status that belongs to the error."""
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not (self._expired or task in self._unread):
                raise error
            task.uncancel()
            error = _cut_off() if self._expired else _nobody_read(self._write_timeout)
        if not isinstance(error, AbstractLLMError):
            if isinstance(error, KeyboardInterrupt | aio.AbortError):
                raise error
            # SystemExit too: whatever a handler does, it must not end the server.
            error = _caused(InternalError(f"{type(error).__name__}: {error}"), error)
        error.fill(request_id=getattr(request, "request_id", None) or None, llm=getattr(request, "llm", None) or None)
        if error.reason is ErrorReason.INTERNAL:
            error.fill(request_id=uuid.uuid4().hex)
            logger.error("the call with request id %s failed", error.request_id, exc_info=error)
        status = status_of(error)
        # Where the caller does not read, the status waits behind what was written before: for a while, not for ever.
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await context.abort(status.code, status.message, status.trailers)
        except TimeoutError:
            raise asyncio.CancelledError from None
        raise AssertionError("unreachable")


def _sendable(response: Any) -> Any:
    """Refuses an answer that gRPC could not send: it would end the call without a word of why."""
    if (size := response.ByteSize()) > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(
            f"the answer has {size} bytes, more than the {MAX_MESSAGE_BYTES} that a message may have; "
            "a stream brings it in pieces, and max_tokens bounds it",
            reason=ErrorReason.MESSAGE_TOO_LARGE,
            field="parameters.max_tokens",
            limit=MAX_MESSAGE_BYTES,
            requested=size,
        )
    return response


def _cut_off() -> ServerShuttingDownError:
    return ServerShuttingDownError("the server shut down before the answer was complete")


def _nobody_read(seconds: float) -> GenerationTimeoutError:
    return GenerationTimeoutError(f"the caller read nothing for {seconds:g} seconds", limit=f"{seconds:g} seconds")


def _caused(error: AbstractLLMError, cause: BaseException) -> AbstractLLMError:
    error.__cause__ = cause
    return error


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A message that cannot be decoded becomes an error the handler raises; grpc itself would answer UNKNOWN."""

    def decode_or_error(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception:
            return InvalidRequestError("the request cannot be decoded: it is not a valid protobuf message")

    return decode_or_error
