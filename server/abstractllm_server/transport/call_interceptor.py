"""The frame around every call: admission, its errors as statuses, its end while the server drains or nobody reads."""

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
from abstractllm_server.transport.abort import abort
from abstractllm_server.transport.limits import MAX_MESSAGE_BYTES
from abstractllm_server.transport.method_prefixes import HEALTH_PREFIX, REFLECTION_PREFIX

__all__ = ["CallInterceptor"]

logger = logging.getLogger("abstractllm.server")

_ALWAYS_ANSWERED = (HEALTH_PREFIX, REFLECTION_PREFIX)
"""Services that keep answering while the server drains."""
_CANCELLATION_TIMEOUT = 0.5
"""Seconds that calls may take to end once they are cancelled."""


class CallInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Wraps every handler but those of health and reflection, which keep answering while the server drains.

    Handlers raise the library's errors and contain no `try`; the interceptor turns them into statuses. It knows the
    calls that run, so that the server can wait for them, and end them, when it stops. It ends those whose caller does
    not read, so that nothing works for them.

    Args:
        write_timeout: Seconds that one message of a stream may wait for its reader.
    """

    def __init__(self, write_timeout: float) -> None:
        self._write_timeout = write_timeout
        self._is_draining = False
        self._is_grace_over = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._write_starts: dict[asyncio.Task[Any], float] = {}
        """The calls that wait for their reader, and since when: the longest first."""
        self._stalled: set[asyncio.Task[Any]] = set()
        """Those that have waited longer than the write timeout."""
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """The number of calls that run."""
        return len(self._tasks)

    async def drain(self, grace: float) -> None:
        """Refuses new calls, lets the running ones go on for `grace` seconds, then ends them with SHUTTING_DOWN."""
        self._is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks.copy(), timeout=grace)
        self._is_grace_over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.copy(), timeout=_CANCELLATION_TIMEOUT)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of a call before its message arrives; called by grpc."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_ALWAYS_ANSWERED):
            return handler
        decode = _checked_decoder(handler.request_deserializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary), decode, handler.response_serializer
            )
        return grpc.unary_stream_rpc_method_handler(
            self._stream(handler.unary_stream), decode, handler.response_serializer
        )

    def _unary(self, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            task = self._start()
            try:
                self._admit(request)
                return _sendable(await handle(request, context))
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)

        return call

    def _stream(self, handle: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Awaitable[None]]:
        async def call(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            task = self._start()
            try:
                self._admit(request)
                async with aclosing(handle(request, context)) as responses:
                    async for response in responses:
                        self._note_write(task)
                        await context.write(_sendable(response))
                        del self._write_starts[task]
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)
                self._write_starts.pop(task, None)
                self._stalled.discard(task)

        return call

    def _note_write(self, task: asyncio.Task[Any]) -> None:
        """Notes that a call begins to write."""
        loop = asyncio.get_running_loop()
        self._write_starts[task] = loop.time()
        # One timer serves all calls: one for each message would cost too much.
        if self._stall_timer is None:
            self._stall_timer = loop.call_later(self._write_timeout, self._end_stalled)

    def _end_stalled(self) -> None:
        """Ends the calls that have waited too long, and sets the timer for the one that will have next."""
        self._stall_timer = None
        loop = asyncio.get_running_loop()
        latest = loop.time() - self._write_timeout
        for task, since in self._write_starts.items():
            if since > latest:
                self._stall_timer = loop.call_later(since - latest, self._end_stalled)
                return
            if task not in self._stalled:
                self._stalled.add(task)
                task.cancel()

    def _start(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        return task

    def _admit(self, request: Any) -> None:
        if self._is_draining:
            raise ServerShuttingDownError("the server is shutting down")
        if isinstance(request, InvalidRequestError):
            raise request

    async def _end(self, error: BaseException, request: Any, context: aio.ServicerContext[Any, Any]) -> NoReturn:
        """Ends the call with the status that belongs to the error."""
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not (self._is_grace_over or task in self._stalled):
                raise error
            task.uncancel()
            error = _shutting_down() if self._is_grace_over else _nobody_read(self._write_timeout)
        if not isinstance(error, AbstractLLMError):
            if isinstance(error, KeyboardInterrupt | aio.AbortError):
                raise error
            # SystemExit too: whatever a handler does, it must not end the server.
            cause, error = error, InternalError(f"{type(error).__name__}: {error}")
            error.__cause__ = cause
        error.fill(request_id=getattr(request, "request_id", None) or None, llm=getattr(request, "llm", None) or None)
        if error.reason is ErrorReason.INTERNAL:
            error.fill(request_id=uuid.uuid4().hex)
            logger.error("the call with request id %s failed", error.request_id, exc_info=error)
        await abort(context, error)


def _sendable(response: Any) -> Any:
    """Refuses an answer that gRPC could not send: gRPC would end the call without saying why."""
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


def _shutting_down() -> ServerShuttingDownError:
    return ServerShuttingDownError("the server shut down before the answer was complete")


def _nobody_read(seconds: float) -> GenerationTimeoutError:
    return GenerationTimeoutError(f"the caller read nothing for {seconds:g} seconds", limit=f"{seconds:g} seconds")


def _checked_decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Wraps a decoder so that it returns the error for a message it cannot decode; grpc itself would answer UNKNOWN."""

    def decode_or_error(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception:
            return InvalidRequestError("the request cannot be decoded: it is not a valid protobuf message")

    return decode_or_error
