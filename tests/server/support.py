"""A server in this process, its stubs, and a failed call's status taken apart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2_grpc

from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2_grpc, generation_pb2_grpc, models_pb2_grpc
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from tests.waiting import LONGEST_WAIT

HANG = 20.0
"""Seconds after which a test counts as hanging."""


class Serving:
    """A running server and a channel to it."""

    def __init__(self, server: Server, registry: LLMRegistry, channel: aio.Channel) -> None:
        self.server = server
        self.registry = registry
        self.channel = channel
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.config = config_pb2_grpc.ConfigServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def scripted(self, name: str = "") -> ScriptedProvider:
        llm = self.registry[name]
        assert isinstance(llm, ScriptedProvider)
        return llm

    async def works(self) -> None:
        """Shows that a good call gets its answer."""
        assert (await self.generation.Generate(request("still there"), timeout=HANG)).text == "still there"


@asynccontextmanager
async def serving(llms: Mapping[str, AbstractLLMInterface] | None = None, **settings: Any) -> AsyncIterator[Serving]:
    """Serves `llms` (one scripted LLM, `echo`, if absent) on a free port of the loopback interface."""
    limits = {name: settings.get(name) for name in ("max_loaded", "memory_budget")}
    registry = LLMRegistry(llms or {"echo": ScriptedProvider()}, **limits)
    settings = {"listen": "127.0.0.1:0", "llms": {llm.name: {} for llm in registry}} | settings
    async with Server(registry, ServerSettings(**settings)) as server, aio.insecure_channel(server.address) as channel:
        yield Serving(server, registry, channel)


def request(prompt: str = "hello big world", /, **fields: Any) -> pb.GenerateRequest:
    """A request; `script`, `reply` and `delay` become provider options."""
    options = {name: fields.pop(name) for name in ("script", "reply", "delay") if name in fields}
    message = pb.GenerateRequest(prompt=prompt, **fields)
    message.provider_options.update(options)
    return message


@dataclass
class Failure:
    """The error that a failed call ended with."""

    code: grpc.StatusCode
    message: str
    infos: list[error_details_pb2.ErrorInfo]
    fields: list[str]
    retry_delays: list[float]
    pushbacks: list[str]
    trailer_bytes: int

    @property
    def reason(self) -> str:
        (info,) = self.infos
        assert info.domain == "abstractllm"
        return str(info.reason)

    @property
    def metadata(self) -> dict[str, str]:
        (info,) = self.infos
        return dict(info.metadata)


async def failure(call: Awaitable[Any]) -> Failure:
    """The failure that a call ends with.

    Raises:
        AssertionError: If it ends well.
    """
    try:
        answer = await asyncio.wait_for(call, LONGEST_WAIT)
    except aio.AioRpcError as error:
        return failure_of(error)
    raise AssertionError(f"the call succeeded: {str(answer)[:500]}")


def failure_of(error: aio.AioRpcError) -> Failure:
    status = status_pb2.Status()
    trailers = list(error.trailing_metadata() or ())
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
            assert status.code == error.code().value[0]
            assert status.message == error.details()
    details: dict[Any, list[Any]] = {}
    for detail in status.details:
        kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
        (kind,) = (kind for kind in kinds if detail.Is(kind.DESCRIPTOR))
        message = kind()
        detail.Unpack(message)
        details.setdefault(kind, []).append(message)
    return Failure(
        code=error.code(),
        message=error.details() or "",
        infos=details.get(error_details_pb2.ErrorInfo, []),
        fields=[
            violation.field
            for bad in details.get(error_details_pb2.BadRequest, [])
            for violation in bad.field_violations
        ],
        retry_delays=[
            delay.retry_delay.seconds + delay.retry_delay.nanos / 1e9
            for delay in details.get(error_details_pb2.RetryInfo, [])
        ],
        pushbacks=[str(value) for key, value in trailers if key == "grpc-retry-pushback-ms"],
        # As HTTP/2 counts header lists; gRPC's own limit is a soft one of 8 KiB. The message is sent percent-encoded.
        trailer_bytes=sum(len(key) + len(value) + 32 for key, value in trailers)
        + sum(1 if 32 <= byte < 127 else 3 for byte in (error.details() or "").encode()),
    )


async def collect(stream: aio.UnaryStreamCall[Any, Any]) -> list[Any]:
    """All messages of a stream."""

    async def read() -> list[Any]:
        return [message async for message in stream]

    return await asyncio.wait_for(read(), HANG)
