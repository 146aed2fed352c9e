"""Asynchronous gRPC calls that end with their caller and raise the client's errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from abstractllm_api.v1.config_pb2_grpc import ConfigServiceStub
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub
from abstractllm_api.v1.models_pb2_grpc import ModelServiceStub
from abstractllm_client._base import Client, closed_error
from abstractllm_client._channel import Connection
from abstractllm_client._status import error_from

Request = TypeVar("Request")
Response = TypeVar("Response")


class Calls:
    """One event loop's channel, its stubs, and the two kinds of calls on it."""

    def __init__(self, connection: Connection) -> None:
        self._metadata = connection.call_metadata
        self.channel = connection.open_async()
        self._closed = False
        self._running: set[Any] = set()
        self.generation = GenerationServiceStub(self.channel)
        self.models = ModelServiceStub(self.channel)
        self.config = ConfigServiceStub(self.channel)

    async def close(self) -> None:
        """Closes the channel; running calls end."""
        self._closed = True
        for call in tuple(self._running):
            call.cancel()  # older gRPC versions leave running streams alone
        await self.channel.close(None)

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Calls and waits; cancelling the task cancels the call."""
        self._check_open()
        call = method(request, timeout=timeout, metadata=self._metadata())
        with self._tracked(call):
            return await call

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> AsyncGenerator[Response, None]:
        """Calls and iterates; closing the generator cancels the call."""
        self._check_open()
        call = method(request, timeout=timeout, metadata=self._metadata())
        with self._tracked(call):
            async for message in call:
                yield message

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()

    @contextmanager
    def _tracked(self, call: Any) -> Iterator[None]:
        self._running.add(call)
        try:
            yield
        except grpc.aio.AioRpcError as error:
            trailers: Any = error.trailing_metadata()
            raise error_from(error.code(), error.details(), trailers) from error
        except asyncio.CancelledError:
            # Closing the channel looks like a cancelled task to the calls on it.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise closed_error() from None
            raise
        finally:
            self._running.discard(call)
            call.cancel()  # merely leaving a call would let the server go on


class CallsByLoop:
    """The calls of every event loop that the client was used in: a channel belongs to one loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_loop: dict[asyncio.AbstractEventLoop, Calls] = {}
        self._lock = threading.Lock()
        self._closed = False

    def get(self) -> Calls:
        """Returns the running loop's calls, and forgets those of loops that were closed.

        Raises:
            GenerationCancelledError: If the client is closed.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise closed_error()
            for other in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[other]
            if loop not in self._by_loop:
                self._by_loop[loop] = Calls(self._connection)
            return self._by_loop[loop]

    def close_soon(self) -> list[Future[None]]:
        """Closes everything, without waiting for it.

        Returns:
            A future for each channel, which ends when it is closed.
        """
        with self._lock:
            self._closed = True
            open_calls, self._by_loop = list(self._by_loop.items()), {}
        # A loop that is not running has no calls; its channel goes with the last reference to it.
        return [
            asyncio.run_coroutine_threadsafe(calls.close(), loop) for loop, calls in open_calls if loop.is_running()
        ]


class AsyncClient(Client):
    """The connections of an asynchronous client, from its first call to its end."""

    def _prepare(self) -> None:
        self._by_loop = CallsByLoop(self._connection)

    @property
    def _calls(self) -> Calls:
        return self._by_loop.get()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The running event loop's connection, for the stubs in `abstractllm_api` and those of other services."""
        return self._calls.channel

    async def close(self) -> None:
        """Closes the connections; calls that run end with GenerationCancelledError."""
        await asyncio.gather(*map(asyncio.wrap_future, self._by_loop.close_soon()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
