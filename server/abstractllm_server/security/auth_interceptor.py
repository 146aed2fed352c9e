"""Who calls, and what he may: bearer tokens, certificates, roles."""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from abstractllm.errors import AbstractLLMError, AuthenticationError, ConfigurationError, PermissionDeniedError
from abstractllm_server.convert.errors import status_of
from abstractllm_server.settings import Role

__all__ = ["AuthInterceptor", "Identity", "TokenFile", "caller_of"]

logger = logging.getLogger("abstractllm.server")

_OPEN = ("/grpc.health.v1.",)
"""Probes bring no credentials."""
_ANY_ROLE = (
    "/abstractllm_api.v1.GenerationService/",
    "/abstractllm_api.v1.ModelService/GetCapabilities",
    "/abstractllm_api.v1.ModelService/ListLlms",
    "/grpc.reflection.",
)
"""What the role `inference` may call; everything else, unlisted and unknown methods too, is the role `admin`'s."""
_LINE = re.compile(r"([0-9a-fA-F]{64})\s+(\S+)(?:\s+(\S.*))?")
_LONGEST_TOKEN = 4096

_identity: contextvars.ContextVar[str] = contextvars.ContextVar("identity", default="")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller that is known."""

    name: str
    role: Role


class TokenFile:
    """The tokens that are accepted: a file with a line `SHA256 ROLE [NAME]` for each; `#` begins a comment.

    The hash is that of the token's bytes, in hexadecimal: `printf %s "$TOKEN" | sha256sum`.

    Args:
        path: The file.

    Raises:
        ConfigurationError: Naming the line that is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: tuple[tuple[str, Identity], ...] = ()
        self.reload()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self._path,)

    def reload(self) -> None:
        """Reads the file again; after an error what was read before stays in force."""
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"tokens: {self._path} cannot be read: {error}", field="tokens") from error
        self._tokens = tuple(
            self._token(number, line)
            for number, text in enumerate(lines, start=1)
            if (line := text.partition("#")[0].strip())
        )

    def _token(self, number: int, line: str) -> tuple[str, Identity]:
        found = _LINE.fullmatch(line)
        if found is None or found[2] not in tuple(Role):
            # The line is not repeated: it may hold a token that was not hashed.
            raise ConfigurationError(
                f"tokens: {self._path}:{number}: must be a SHA-256 in hexadecimal, a role ({', '.join(Role)}) "
                "and perhaps a name",
                field="tokens",
            )
        digest = found[1].lower()
        return digest, Identity(found[3] or digest[:12], Role(found[2]))

    def find(self, token: str) -> Identity | None:
        """Whose token it is. Every line is compared, each in constant time."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for known, identity in self._tokens:
            if hmac.compare_digest(known, digest):
                found = identity
        return found


class AuthInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg] # generic in its stubs alone
    """Lets a call through if its caller is known and his role allows the method.

    A token is looked at before the call's message arrives, and a call without a valid one ends there. A certificate has
    been checked by TLS before there was a call.

    Args:
        tokens: The tokens that are accepted; None if tokens are not.
        subjects: The role of each certificate's name: a subject alternative name or the common name.
    """

    def __init__(self, tokens: TokenFile | None, subjects: Mapping[str, Role]) -> None:
        self._tokens = tokens
        self._subjects = dict(subjects)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called by grpc for each call, before its message arrives."""
        method: str = handler_call_details.method
        if method.startswith(_OPEN):
            return await continuation(handler_call_details)
        try:
            identity = self._bearer(handler_call_details.invocation_metadata or ())
            if identity is None and not self._subjects:
                raise AuthenticationError("authorization: a bearer token is required", field="authorization")
            if identity is not None:
                _allow(identity, method)
        except AbstractLLMError as error:
            return _denial(error)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return self._checked(handler, method) if identity is None else handler

    def _bearer(self, metadata: Any) -> Identity | None:
        """The caller by his token; None if he brings none."""
        values = [value for key, value in metadata if key == "authorization"]
        if not values:
            return None
        if self._tokens is None:
            if self._subjects:
                return None
            raise AuthenticationError("authorization: tokens are not accepted here", field="authorization")
        value = values[0]
        kind, _, token = (value.decode("latin-1") if isinstance(value, bytes) else value).partition(" ")
        if len(values) > 1 or kind.lower() != "bearer" or not token or len(token) > _LONGEST_TOKEN:
            raise AuthenticationError("authorization: must be one bearer token", field="authorization")
        identity = self._tokens.find(token.strip())
        if identity is None:
            raise AuthenticationError("authorization: the token is not known", field="authorization")
        return identity

    def _checked(self, handler: Any, method: str) -> Any:
        """The handler, once the caller's certificate has been looked at."""

        async def admit(context: aio.ServicerContext[Any, Any]) -> None:
            try:
                _allow(self._certified(context), method)
            except AbstractLLMError as error:
                await _abort(context, error)

        if handler.unary_unary:

            async def unary(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
                await admit(context)
                return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)

        handle = handler.unary_stream or handler.stream_stream
        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler

        async def stream(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
            await admit(context)
            answer = handle(request, context)
            if inspect.isawaitable(answer):  # it writes to the context itself
                await answer
                return
            async for response in answer:
                await context.write(response)

        return make(stream, handler.request_deserializer, handler.response_serializer)

    def _certified(self, context: aio.ServicerContext[Any, Any]) -> Identity:
        facts = context.auth_context()
        names = [
            name.decode("utf-8", "replace")
            for key in ("x509_common_name", "x509_subject_alternative_name")
            for name in facts.get(key, ())
        ]
        for name in names:
            if name in self._subjects:
                return Identity(name, self._subjects[name])
        if not names:
            raise AuthenticationError("a bearer token or a certificate is required", field="authorization")
        raise PermissionDeniedError(f"no role is given to the certificate of {names[0][:100]}")


def caller_of(context: aio.ServicerContext[Any, Any]) -> str:
    """Whose call it is: the caller's name, or his connection's where nobody is asked for credentials."""
    return _identity.get() or context.peer()


def _allow(identity: Identity, method: str) -> None:
    if identity.role is not Role.ADMIN and not method.startswith(_ANY_ROLE):
        raise PermissionDeniedError(f"{method.rpartition('/')[2][:100]} needs the role {Role.ADMIN}")
    # The handler runs in the same task as the interceptors.
    _identity.set(f"{identity.role}:{identity.name}")


def _denial(error: AbstractLLMError) -> Any:
    """A handler that ends the call at once; one for a single message would wait for it."""

    async def deny(_requests: Any, context: aio.ServicerContext[Any, Any]) -> None:
        await _abort(context, error)

    return grpc.stream_stream_rpc_method_handler(deny)


async def _abort(context: aio.ServicerContext[Any, Any], error: AbstractLLMError) -> None:
    status = status_of(error)
    await context.abort(status.code, status.message, status.trailers)
