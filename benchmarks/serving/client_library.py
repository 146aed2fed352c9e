"""The process that measures the Python library: a local model, called in process, without a server and without gRPC.

python -m benchmarks.serving.client_library MODEL THREADS
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from abstractllm import LLM, Finished, TextDelta, create_llm
from benchmarks.serving.workload import Figures, StreamTimes, Workload, serve_workloads, settings, summarize


def parameters(workload: Workload, index: int) -> dict[str, Any]:
    """Returns the parameters of one request."""
    chosen = settings(index) | {"seed": index} if workload.sampled else {"temperature": 0.0}
    return {"max_tokens": workload.new_tokens, **chosen}


async def measure(llm: LLM, workload: Workload) -> Figures:
    """Runs a workload."""
    streams: list[StreamTimes] = []

    async def unary(index: int) -> int:
        answer = await llm.complete_async(workload.text(index), **parameters(workload, index))
        return answer.usage.output_tokens or 0

    async def stream(index: int, times: StreamTimes) -> int:
        words = tokens = 0
        async for event in llm.stream_async(workload.text(index), **parameters(workload, index)):
            if isinstance(event, TextDelta):
                words += event.text.count("w")
                times.tokens.append((time.perf_counter(), words))
            elif isinstance(event, Finished):
                tokens = event.usage.output_tokens or 0
        return tokens

    async def client(number: int) -> int:
        tokens = 0
        for index in range(number, workload.clients * workload.answers, workload.clients):
            if workload.streaming:
                streams.append(times := StreamTimes(time.perf_counter()))
                generated = await stream(index, times)
            else:
                generated = await unary(index)
            tokens += generated
        return tokens

    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*(client(number) for number in range(workload.clients))))
    return summarize(workload, time.perf_counter() - start, tokens, streams)


def main() -> None:
    """Loads the model, and answers workloads until its input ends."""
    model, threads = sys.argv[1:]
    keys = {"model": model, "threads": int(threads), "max_batch_size": 64, "max_queue": 1000}
    with create_llm("huggingface", **keys) as llm, asyncio.Runner() as runner:
        runner.run(llm.load())
        serve_workloads(lambda workload: runner.run(measure(llm, workload)))


if __name__ == "__main__":
    main()
