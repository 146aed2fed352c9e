"""A real gRPC server on a loopback port, whose answers each test writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from abstractllm_api.v1 import (
    config_pb2,
    config_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)
from abstractllm_api.v1 import generation_pb2 as pb

Handler = Callable[[Any, grpc.aio.ServicerContext], Any]
GUARD = 60.0
"""Seconds after which a test gives up waiting for what should come at once."""


@dataclass
class Failure:
    """The error in which a call ends, and its google.rpc details."""

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    message: str = "it failed"
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    retry_after: float | None = None
    pushback_ms: int | None = None
    domain: str = "abstractllm"

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        details: list[Message] = []
        if self.reason is not None:
            details.append(
                error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=dict(self.metadata))
            )
        if self.fields:
            violations = [error_details_pb2.BadRequest.FieldViolation(field=name) for name in self.fields]
            details.append(error_details_pb2.BadRequest(field_violations=violations))
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        trailers: list[tuple[str, str | bytes]] = []
        if details:
            status = status_pb2.Status(code=self.code.value[0], message=self.message)
            for detail in details:
                packed = PackedAny()
                packed.Pack(detail)
                status.details.append(packed)
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
        if self.pushback_ms is not None:
            trailers.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
        return tuple(trailers)

    async def __call__(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(self.code, self.message, self.trailers())

    async def stream(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await context.abort(self.code, self.message, self.trailers())
        yield


class Server:
    """The server, in a thread of its own: `handlers` holds each method's answer, `requests` the requests that came."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.running = 0
        self.released = threading.Event()
        self.address = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GUARD)
        self._loop.close()

    def do(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(GUARD)

    async def _start(self) -> None:
        limit = 16 * 1024 * 1024
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", limit)]
        self._server = grpc.aio.server(options=options)
        for module, stubs in (
            (generation_pb2, generation_pb2_grpc),
            (models_pb2, models_pb2_grpc),
            (config_pb2, config_pb2_grpc),
        ):
            for service in module.DESCRIPTOR.services_by_name.values():
                base = getattr(stubs, f"{service.name}Servicer")
                servicer = type(service.name, (base,), dict(self._methods(service)))
                getattr(stubs, f"add_{service.name}Servicer_to_server")(servicer(), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    def _methods(self, service: ServiceDescriptor) -> Iterator[tuple[str, Any]]:
        for method in service.methods:
            yield method.name, self._stream(method.name) if method.server_streaming else self._unary(method.name)

    def _unary(self, name: str) -> Any:
        async def method(servicer: object, request: Any, context: grpc.aio.ServicerContext) -> Any:
            with self._recorded(request, context):
                return await self.handlers[name](request, context)

        return method

    def _stream(self, name: str) -> Any:
        async def method(servicer: object, request: Any, context: grpc.aio.ServicerContext) -> Any:
            with self._recorded(request, context):
                async for message in self.handlers[name](request, context):
                    yield message

        return method

    def _recorded(self, request: Any, context: grpc.aio.ServicerContext) -> _Recorded:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        return _Recorded(self)

    # Answers that many tests use.

    def say(self, text: str = "Hello there") -> None:
        """Lets Generate, StreamGenerate answer a text, word by word."""
        message = pb.ChatMessage(role=pb.ROLE_ASSISTANT, parts=[pb.Part(text=text)])

        async def whole(request: Any, context: Any) -> pb.GenerateResponse:
            return pb.GenerateResponse(id="1", text=text, message=message, finish_reason=pb.FINISH_REASON_STOP)

        async def pieces(request: Any, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
            yield pb.StreamGenerateResponse(started=pb.Started(id="1", llm="local", provider="test", model="m"))
            for word in text.split(" "):
                piece = word if word == text.split(" ")[0] else " " + word
                yield pb.StreamGenerateResponse(text_delta=pb.TextDelta(text=piece))
            finished = pb.Finished(finish_reason=pb.FINISH_REASON_STOP, message=message)
            yield pb.StreamGenerateResponse(finished=finished)

        self.handlers |= {"Generate": whole, "StreamGenerate": pieces}

    def go_on_for_ever(self) -> None:
        """Lets Generate wait, and StreamGenerate send words, until they are cancelled."""

        async def whole(request: Any, context: Any) -> None:
            await asyncio.sleep(3600)

        async def pieces(request: Any, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
            yield pb.StreamGenerateResponse(started=pb.Started(id="1"))
            while True:
                yield pb.StreamGenerateResponse(text_delta=pb.TextDelta(text="on "))
                await asyncio.sleep(0.005)

        self.handlers |= {"Generate": whole, "StreamGenerate": pieces}

    def fail(self, *failures: Failure, then: str | None = None) -> None:
        """Lets Generate and StreamGenerate fail: once each in order, then with the last one, or answer `then`."""
        left = list(failures)
        self.say(then or "")
        answers = dict(self.handlers)

        def next_failure() -> Failure | None:
            return left.pop(0) if len(left) > 1 or (left and then is not None) else (left[0] if left else None)

        async def whole(request: Any, context: Any) -> Any:
            failure = next_failure()
            return await (failure or answers["Generate"])(request, context)

        async def pieces(request: Any, context: Any) -> AsyncIterator[Any]:
            failure = next_failure()
            async for message in (failure.stream if failure else answers["StreamGenerate"])(request, context):
                yield message

        self.handlers |= {"Generate": whole, "StreamGenerate": pieces}


class _Recorded:
    """Counts a call as running until it is left, however it is left."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.running += 1
        self._server.released.clear()

    def __exit__(self, *_: object) -> None:
        self._server.running -= 1
        if not self._server.running:
            self._server.released.set()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def failure() -> type[Failure]:
    return Failure
