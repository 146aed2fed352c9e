"""Calls to a server, and their ends taken apart."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import Any

from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc

Stub = generation_pb2_grpc.GenerationServiceStub
GENERATE = "/abstractllm_api.v1.GenerationService/Generate"
STREAM = "/abstractllm_api.v1.GenerationService/StreamGenerate"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
ENDLESS = {4: -100.0}
"""A bias that forbids the demo model to end by itself."""
DEMO = {"provider": "huggingface", "model": "demo", "threads": 1, "kv_cache_bytes": "128MiB"}
"""The configuration of a real engine process."""


@dataclass
class End:
    """The end of a call.

    Attributes:
        code: The name of its status.
        reason: The reason of its error; empty if there is none.
        retry_after: The seconds of its RetryInfo; None without one.
        message: Its message.
        facts: The further facts of its error.
        fields: The fields that its error names.
        pieces: Its pieces of text or reasoning.
        usage: The tokens of the answer that its last event tells.
        seconds: Its duration.
    """

    code: str
    reason: str = ""
    retry_after: float | None = None
    message: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    pieces: int = 0
    usage: int | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".strip()


def request(prompt: str = "hello", /, *, llm: str = "", script: Any = None, **parameters: Any) -> pb.GenerateRequest:
    """Returns a request; `script` is played by a scripted LLM."""
    message = pb.GenerateRequest(llm=llm, prompt=prompt, parameters=pb.GenerationParameters(**parameters))
    if script is not None:
        message.provider_options.update({"script": script})
    return message


def end_of(error: aio.AioRpcError, seconds: float = 0.0) -> End:
    """Returns the end that an error tells of."""
    end = End(error.code().name, message=error.details() or "", seconds=seconds)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                _add_detail(end, detail)
    return end


def _add_detail(end: End, detail: Any) -> None:
    if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
        info = error_details_pb2.ErrorInfo.FromString(detail.value)
        end.reason, end.facts = info.reason, dict(info.metadata)
    elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
        delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
        end.retry_after = delay.seconds + delay.nanos / 1e9
    elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
        bad = error_details_pb2.BadRequest.FromString(detail.value)
        end.fields = [violation.field for violation in bad.field_violations]


def bearer(token: str | None) -> list[tuple[str, str]]:
    """Returns the metadata of a caller with this token."""
    return [("authorization", f"Bearer {token}")] if token else []


async def unary(call: Awaitable[Any]) -> End:
    """Waits for a unary call's end."""
    began = time.monotonic()
    try:
        answer = await call
    except aio.AioRpcError as error:
        return end_of(error, time.monotonic() - began)
    usage = answer.usage.output_tokens if isinstance(answer, pb.GenerateResponse) else None
    return End("OK", usage=usage, seconds=time.monotonic() - began)


async def streamed(call: Any, first: asyncio.Event | None = None) -> End:
    """Reads a stream to its end; sets `first` when the first piece has come."""
    began, pieces, usage = time.monotonic(), 0, None
    try:
        async for event in call:
            if event.HasField("text_delta") or event.HasField("reasoning_delta"):
                pieces += 1
                if first is not None:
                    first.set()
            if event.HasField("finished"):
                usage = event.finished.usage.output_tokens
    except aio.AioRpcError as error:
        end = end_of(error, time.monotonic() - began)
        end.pieces = pieces
        return end
    except asyncio.CancelledError:
        if not call.cancelled():
            raise
        return End("CANCELLED", pieces=pieces)
    finally:
        if first is not None:
            first.set()
    return End("OK", pieces=pieces, usage=usage, seconds=time.monotonic() - began)


def tally(ends: Iterable[End]) -> dict[str, int]:
    """Returns the number of each status and reason."""
    return dict(Counter(str(end) for end in ends))
