"""The check of every call's caller: known by a bearer token or a certificate, and allowed to call the method."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import grpc
from grpc import aio

from abstractllm.errors import AbstractLLMError, AuthenticationError, PermissionDeniedError
from abstractllm_server.security.credentials import Identity, TokenFile
from abstractllm_server.settings import Role
from abstractllm_server.transport.abort import abort
from abstractllm_server.transport.method_prefixes import HEALTH_PREFIX, REFLECTION_PREFIX

__all__ = ["AuthInterceptor", "caller_of"]

_LONGEST_TOKEN = 4096

_caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")


class AuthInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Lets a call through if its caller is known and their role allows the method.

    A token is looked at before the call's message arrives, and a call without a valid one ends there. A certificate has
    been checked by TLS before there was a call.

    Args:
        tokens: The tokens that are accepted; None if tokens are not.
        subjects: The role of each certificate's name: a subject alternative name or the common name.
        inference_paths: The methods (`/SERVICE/METHOD`) and whole services (`/SERVICE/`) that the role `inference` may
            call. All others, unknown ones too, need the role `admin`.
    """

    def __init__(
        self, tokens: TokenFile | None, subjects: Mapping[str, Role], inference_paths: Collection[str]
    ) -> None:
        self._tokens = tokens
        self._subjects = dict(subjects)
        self._inference_paths = frozenset(inference_paths)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Checks a call before its message arrives; called by grpc."""
        method: str = handler_call_details.method
        if method.startswith(HEALTH_PREFIX):  # probes bring no credentials
            return await continuation(handler_call_details)
        try:
            identity = self._authenticate_by_token(handler_call_details.invocation_metadata or ())
            if identity is None and not self._subjects:
                raise AuthenticationError("authorization: a bearer token is required", field="authorization")
            if identity is not None:
                self._authorize(identity, method)
        except AbstractLLMError as error:
            return _denial(error)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return self._checked_by_certificate(handler, method) if identity is None else handler

    def _authenticate_by_token(self, metadata: Any) -> Identity | None:
        """Returns the caller that a call's token belongs to; None if it brings no token and may do without."""
        values = [value for key, value in metadata if key == "authorization"]
        if not values:
            return None
        if self._tokens is None:
            if self._subjects:
                return None
            raise AuthenticationError("authorization: this server takes no tokens", field="authorization")
        value = values[0]
        kind, _, token = (value.decode("latin-1") if isinstance(value, bytes) else value).partition(" ")
        if len(values) > 1 or kind.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise AuthenticationError("authorization: must be one bearer token", field="authorization")
        identity = self._tokens.find(token.strip())
        if identity is None:
            raise AuthenticationError("authorization: the token is not known", field="authorization")
        return identity

    def _checked_by_certificate(self, handler: Any, method: str) -> Any:
        """Wraps a handler so that it runs once the caller's certificate has been looked at."""

        async def check(context: aio.ServicerContext[Any, Any]) -> None:
            try:
                self._authorize(self._authenticate_by_certificate(context), method)
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

    def _authenticate_by_certificate(self, context: aio.ServicerContext[Any, Any]) -> Identity:
        properties = context.auth_context()
        names = [
            name.decode("utf-8", "replace")
            for key in ("x509_common_name", "x509_subject_alternative_name")
            for name in properties.get(key, ())
        ]
        for name in names:
            if name in self._subjects:
                return Identity(name, self._subjects[name])
        if not names:
            raise AuthenticationError("a bearer token or a certificate is required", field="authorization")
        raise PermissionDeniedError(f"tls.subjects gives no role to the certificate of {names[0][:100]}")

    def _authorize(self, identity: Identity, method: str) -> None:
        """Refuses a method that the caller's role does not allow, and notes who the caller is."""
        service, _, name = method.rpartition("/")
        is_inference = not self._inference_paths.isdisjoint((method, f"{service}/"))
        is_open = is_inference or method.startswith(REFLECTION_PREFIX)  # every known caller may read the contract
        if identity.role is not Role.ADMIN and not is_open:
            raise PermissionDeniedError(f"{name[:100]} needs the role {Role.ADMIN}")
        # The handler runs in the same task as the interceptors.
        _caller.set(f"{identity.role}:{identity.name}")


def caller_of(context: aio.ServicerContext[Any, Any]) -> str:
    """Returns the name of a call's caller, or the address of their connection if nobody is asked for credentials."""
    return _caller.get() or context.peer()


def _denial(error: AbstractLLMError) -> Any:
    """Makes a handler that ends the call at once: one for a single message would wait for that message."""

    async def deny(_requests: Any, context: aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(deny)
