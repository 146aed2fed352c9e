"""GenerationService: decode, call, encode."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from grpc import aio

from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_server.convert import responses
from abstractllm_server.convert.requests import count_request, generation_request
from abstractllm_server.security.roles import open_to_inference
from abstractllm_server.telemetry.current import current_record

__all__ = ["GenerationServicer"]


@open_to_inference
class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Generates with the registry's LLMs; every method is open to the role `inference`."""

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry

    async def Generate(
        self, request: pb.GenerateRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.GenerateResponse:
        """Answers at once, when the whole answer is there."""
        llm = self._llm(request.llm)
        return responses.completion(
            await llm.run_to_end(generation_request(request, context.time_remaining(), current_record()))
        )

    async def StreamGenerate(
        self, request: pb.GenerateRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[pb.StreamGenerateResponse, None]:
        """Answers event by event."""
        llm = self._llm(request.llm)
        generation = generation_request(request, context.time_remaining(), current_record())
        async with aclosing(llm.run(generation)) as events:
            async for event in events:
                yield responses.event(event)

    async def CountTokens(
        self,
        request: pb.CountTokensRequest,
        context: aio.ServicerContext[Any, Any],
    ) -> pb.CountTokensResponse:
        """Counts the tokens of a prompt."""
        llm = self._llm(request.llm)
        tokens = await llm.run_count(count_request(request, context.time_remaining(), current_record()))
        return pb.CountTokensResponse(input_tokens=tokens)

    def _llm(self, name: str) -> AbstractLLMInterface:
        """Returns the LLM of a name, and notes it on the call's record: an empty name means the default one."""
        llm = self._registry[name]
        current_record().llm = llm.name
        return llm
