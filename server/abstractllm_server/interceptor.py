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
    InternalError,
    InvalidRequestError,
    ServerShuttingDownError,
)
from abstractllm_server.errors import status_of

__all__ = ["CallGuard"]

logger = logging.getLogger("abstractllm.server")

_UNGUARDED = ("/grpc.health.v1.", "/grpc.reflection.")


class CallGuard(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Wraps every handler but those of health and reflection, which keep answering while the server drains.

    Handlers raise the library's errors and contain no `try`; this turns them into statuses. It also knows the calls
    that run, so that the server can wait for them, and end them, when it stops.
    """

    def __init__(self) -> None:
        self._draining = False
        self._expired = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sending: set[asyncio.Task[Any]] = set()

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
        # One that is sending looks at `_expired` itself afterwards: cancelled while it sends, it could give no status.
        for task in self._tasks - self._sending:
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
                return await handle(request, context)
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)

        return guarded

    def _stream(self, handle: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncGenerator[Any, None]]:
        async def guarded(request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncGenerator[Any, None]:
            task = self._enter()
            try:
                self._admit(request)
                async with aclosing(handle(request, context)) as responses:
                    async for response in responses:
                        self._sending.add(task)
                        yield response
                        self._sending.discard(task)
                        if self._expired:
                            raise _cut_off()
            except GeneratorExit:
                raise
            except BaseException as error:
                await self._end(error, request, context)
            finally:
                self._tasks.discard(task)
                self._sending.discard(task)

        return guarded

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
            if not self._expired or task is None:
                raise error
            task.uncancel()
            error = _cut_off()
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
        await context.abort(status.code, status.message, status.trailers)


def _cut_off() -> ServerShuttingDownError:
    return ServerShuttingDownError("the server shut down before the answer was complete")


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
