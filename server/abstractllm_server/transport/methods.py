"""The methods of all services, as their servicers register them, for the guard to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

__all__ = ["Method", "MethodTable"]


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Args:
        path: `/package.Service/Method`.
        handle: The servicer's method; None if there is no such method.
        decode: Reads a request.
        request: The type of its requests.
        encode: Writes an answer.
        streams_requests: True if a call brings any number of requests.
        streams_responses: True if a call is answered by any number of messages.
    """

    path: str
    handle: Callable[..., Any] | None = None
    decode: Callable[[bytes], Any] | None = None
    request: Descriptor | None = None
    encode: Callable[[Any], bytes] | None = None
    streams_requests: bool = False
    streams_responses: bool = False


class MethodTable(dict[str, Method]):
    """Methods by path. The generated functions `add_..._to_server` take it in place of a server."""

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Does nothing: the generated functions bring the same methods by the other way too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a service.

        Args:
            service: Its full name.
            handlers: Its methods by name, as `grpc.RpcMethodHandler`.
        """
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self[path] = Method(
                path,
                handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream,
                handler.request_deserializer,
                handler.request_deserializer.__self__.DESCRIPTOR,  # it is the method FromString of the message's class
                handler.response_serializer,
                handler.request_streaming,
                handler.response_streaming,
            )
