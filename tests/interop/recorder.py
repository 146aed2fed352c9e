"""A server of the contract that is not ours: it records what calls carry, and answers as a newer server might."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc

UNKNOWN_FIELD = bytes([15 << 3 | 2, 3]) + b"new"
"""Field 15, length-delimited, of a later version of a message."""
NEW_FINISH_REASON: Any = 99


class Recorder(generation_pb2_grpc.GenerationServiceServicer):
    """Answers as a newer server would.

    Attributes:
        metadata: What the last call carried beside its message.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serves on a free port, and yields the address."""
        server = aio.server()
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:  # noqa: N802
        """Answers with an unknown finish reason, an unknown part, and a field that is not in this contract."""
        self._record(context)
        answer = pb.GenerateResponse(text="newer", llm="newer", finish_reason=NEW_FINISH_REASON)
        answer.message.role = pb.ROLE_ASSISTANT
        answer.message.parts.add(text="newer")
        answer.message.parts.append(newer(pb.Part))
        grown: pb.GenerateResponse = newer(pb.GenerateResponse, answer)
        return grown

    async def StreamGenerate(  # noqa: N802
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        """Answers with events that are not in this contract among those that are."""
        self._record(context)
        event = pb.StreamGenerateResponse
        yield event(started=pb.Started(id="1", llm="newer"))
        yield newer(event)
        yield event(text_delta=pb.TextDelta(text="new"))
        yield newer(event)
        yield event(text_delta=newer(pb.TextDelta, pb.TextDelta(text="er")))
        yield event(finished=pb.Finished(finish_reason=NEW_FINISH_REASON))

    async def CountTokens(self, request: pb.CountTokensRequest, context: Any) -> pb.CountTokensResponse:  # noqa: N802
        """Waits until the caller leaves."""
        self._record(context)
        await asyncio.sleep(3600)
        return pb.CountTokensResponse()

    def _record(self, context: Any) -> None:
        self.metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def newer(kind: Any, message: Any = None) -> Any:
    """A message with a field that this contract does not have."""
    return kind.FromString((b"" if message is None else message.SerializeToString()) + UNKNOWN_FIELD)
