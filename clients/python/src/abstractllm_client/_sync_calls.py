"""Synchronous gRPC calls that end with their caller and raise the client's errors."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from abstractllm_api.v1.config_pb2_grpc import ConfigServiceStub
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub
from abstractllm_api.v1.models_pb2_grpc import ModelServiceStub
from abstractllm_client._aio import AsyncRemoteLLM
from abstractllm_client._base import Client, closed_error
from abstractllm_client._channel import Connection
from abstractllm_client._status import error_from

Request = TypeVar("Request")
Response = TypeVar("Response")


class Calls:
    """A channel, its stubs, and the two kinds of calls on it."""

    def __init__(self, connection: Connection) -> None:
        self._metadata = connection.call_metadata
        self.channel = connection.open()
        self._closed = False
        self.generation = GenerationServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.config = ConfigServiceStub(self.channel)

    def close(self) -> None:
        """Closes the channel; running calls end."""
        self._closed = True
        self.channel.close()

    def unary(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout: float | None
    ) -> Response:
        """Calls and waits; an interrupt (Ctrl-C) cancels the call."""
        with self._translated():
            # A future, because a plain call would go on at the server after an interrupt.
            call: Any = method.future(request, timeout=timeout, metadata=self._metadata())
            try:
                response: Response = call.result()
                return response
            finally:
                call.cancel()

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request, timeout: float | None
    ) -> Generator[Response, None, None]:
        """Calls and iterates; leaving the iterator cancels the call."""
        with self._translated():
            call: Any = method(request, timeout=timeout, metadata=self._metadata())
            try:
                yield from call
            finally:
                call.cancel()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.FutureCancelledError:
            raise closed_error() from None
        except grpc.RpcError as error:
            call: Any = error  # every RpcError of a call is also that call
            raise error_from(call.code(), call.details(), call.trailing_metadata()) from error
        except ValueError:
            if self._closed:
                raise closed_error() from None
            raise


class SyncClient(Client):
    """The connection of a synchronous client, and the asynchronous client behind its methods named `*_async`."""

    def _prepare(self) -> None:
        connection = self._connection
        self._calls = Calls(connection)
        self._async = AsyncRemoteLLM(
            connection.address,
            self._llm,
            token=connection.token,
            tls=connection.tls,
            root_certificates=connection.root_certificates,
            private_key=connection.private_key,
            certificate_chain=connection.certificate_chain,
            channel_options=connection.options,
            metadata=connection.metadata,
            load_balancing=connection.load_balancing,
            system_prompt=self._system_prompt,
            timeout=self._timeout,
            **self._defaults,
        )

    @property
    def channel(self) -> grpc.Channel:
        """The connection, for the stubs in `abstractllm_api` and those of other services."""
        return self._calls.channel

    def close(self) -> None:
        """Closes the connections; calls that run end with GenerationCancelledError."""
        self._calls.close()
        self._async._by_loop.close_soon()

    async def close_async(self) -> None:
        """The asynchronous `close`."""
        self._calls.close()
        await self._async.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()
