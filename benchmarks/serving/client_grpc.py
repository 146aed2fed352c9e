"""The process that measures our server as its client.

python -m benchmarks.serving.client_grpc ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
import time

from grpc import aio

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub
from benchmarks.serving.workload import Figures, StreamTimes, Workload, serve_workloads, settings, summarize


def build_request(workload: Workload, index: int) -> pb.GenerateRequest:
    """Builds one request."""
    chosen = settings(index) | {"seed": index} if workload.sampled else {"temperature": 0.0}
    return pb.GenerateRequest(
        prompt=workload.text(index),
        parameters=pb.GenerationParameters(max_tokens=workload.new_tokens, **chosen),
    )


async def measure(address: str, workload: Workload) -> Figures:
    """Runs a workload over one channel."""
    async with aio.insecure_channel(address) as channel:
        stub = GenerationServiceStub(channel)
        requests = [build_request(workload, index) for index in range(workload.clients * workload.answers)]

        async def unary(request: pb.GenerateRequest) -> int:
            answer = await stub.Generate(request)
            return int(answer.usage.output_tokens)

        async def stream(request: pb.GenerateRequest, times: StreamTimes) -> int:
            words = tokens = 0
            async for event in stub.StreamGenerate(request):
                kind = event.WhichOneof("event")
                if kind == "text_delta":
                    words += event.text_delta.text.count("w")
                    times.tokens.append((time.perf_counter(), words))
                elif kind == "finished":
                    tokens = event.finished.usage.output_tokens
            return tokens

        streams: list[StreamTimes] = []

        async def client(number: int) -> int:
            tokens = 0
            for request in requests[number :: workload.clients]:
                if workload.streaming:
                    streams.append(times := StreamTimes(time.perf_counter()))
                    generated = await stream(request, times)
                else:
                    generated = await unary(request)
                tokens += generated
            return tokens

        await channel.channel_ready()
        start = time.perf_counter()
        tokens = sum(await asyncio.gather(*(client(number) for number in range(workload.clients))))
        return summarize(workload, time.perf_counter() - start, tokens, streams)


if __name__ == "__main__":
    serve_workloads(lambda workload: asyncio.run(measure(sys.argv[1], workload)))
