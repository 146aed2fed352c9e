"""The process that measures the peer, `transformers serve`, as its client.

python -m benchmarks.serving.client_http ADDRESS MODEL
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp

from benchmarks.serving.workload import Figures, StreamTimes, Workload, serve_workloads, summarize

_GREEDY = json.dumps({"do_sample": False, "eos_token_id": -1, "pad_token_id": 0})


def build_body(workload: Workload, model: str, index: int) -> bytes:
    """Builds the body of one request.

    It is greedy, as with continuous batching the peer uses the first request's settings for all.

    Raises:
        ValueError: If the workload is sampled.
    """
    if workload.sampled:
        raise ValueError("the peer does not take settings for each request")
    values: dict[str, Any] = {
        "model": model,
        "prompt": workload.text(index),
        "max_tokens": workload.new_tokens,
        "generation_config": _GREEDY,
        "stream": workload.streaming,
    }
    return json.dumps(values).encode()


async def measure(address: str, model: str, workload: Workload) -> Figures:
    """Runs a workload, each client with a connection that it keeps."""
    bodies = [build_body(workload, model, index) for index in range(workload.clients * workload.answers)]
    url = f"{address}/v1/completions"
    streams: list[StreamTimes] = []
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def unary(body: bytes) -> int:
            async with session.post(url, data=body) as response:
                response.raise_for_status()
                return int((await response.json())["usage"]["completion_tokens"])

        async def stream(body: bytes, times: StreamTimes) -> int:
            words = tokens = 0
            async with session.post(url, data=body) as response:
                response.raise_for_status()
                async for line in response.content:
                    if not line.startswith(b"data: {"):
                        continue
                    chunk = json.loads(line[6:])
                    if "error" in chunk:
                        raise RuntimeError(f"the peer failed: {chunk['error']}")
                    if chunk.get("usage"):
                        tokens = chunk["usage"]["completion_tokens"]
                    elif text := chunk["choices"][0]["text"]:
                        words += text.count("w")
                        times.tokens.append((time.perf_counter(), words))
            return tokens

        async def client(number: int) -> int:
            tokens = 0
            for body in bodies[number :: workload.clients]:
                if workload.streaming:
                    streams.append(times := StreamTimes(time.perf_counter()))
                    generated = await stream(body, times)
                else:
                    generated = await unary(body)
                tokens += generated
            return tokens

        start = time.perf_counter()
        tokens = sum(await asyncio.gather(*(client(number) for number in range(workload.clients))))
        return summarize(workload, time.perf_counter() - start, tokens, streams)


if __name__ == "__main__":
    serve_workloads(lambda workload: asyncio.run(measure(sys.argv[1], sys.argv[2], workload)))
