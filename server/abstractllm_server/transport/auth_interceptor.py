"""The check of every call's caller: known by a bearer token or a certificate, and allowed to call the method."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import aio

from abstractllm.errors import AbstractLLMError
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.transport.abort import abort

__all__ = ["AuthInterceptor", "caller_of"]

_caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")


class AuthInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Lets a call through if its caller is known and their role allows the method."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Checks a call before its message arrives; called by grpc."""
        method: str = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        if not self._access.reads_certificates:
            try:
                identity = self._access.authenticate(method, metadata, {}, "")
            except AbstractLLMError as error:
                return _denial(error)
            _caller.set(identity.caller)
            return await continuation(handler_call_details)
        handler = await continuation(handler_call_details)
        return None if handler is None else self._checked(handler, method, metadata)

    def _checked(self, handler: Any, method: str, metadata: Any) -> Any:
        """Wraps a handler so that it runs once the caller's certificate has been looked at."""

        async def check(context: aio.ServicerContext[Any, Any]) -> None:
            try:
                identity = self._access.authenticate(method, metadata, context.auth_context(), context.peer())
                _caller.set(identity.caller)
            except AbstractLLMError as error:
                await abort(context, error)

        if handler.unary_unary:

            async def unary(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
                await check(context)
                return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)

        handle = handler.unary_stream or handler.stream_stream
        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler

        async def stream(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            await check(context)
            responses = handle(request, context)
            if inspect.isawaitable(responses):  # the handler writes to the context itself
                await responses
                return
            async for response in responses:
                await context.write(response)

        return make(stream, handler.request_deserializer, handler.response_serializer)


def caller_of(context: aio.ServicerContext[Any, Any]) -> str:
    """Returns the name of a call's caller, or the address of their connection if nobody is asked for credentials."""
    return _caller.get() or context.peer()


def _denial(error: AbstractLLMError) -> Any:
    """Makes a handler that ends the call at once: one for a single message would wait for that message."""

    async def deny(_requests: Any, context: aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(deny)
