"""Measures generation through gRPC: time to first token and output tokens per second, by number of callers.

    .venv/bin/python -m benchmarks.generation                      # a server with the demo model is started
    .venv/bin/python -m benchmarks.generation --address HOST:PORT --callers 1 4 16

Without an address it starts a server with the demo model, and stops it at the end. The figures hold for this machine
and this model alone; compare them with figures of the same machine only.
"""

import argparse
import asyncio
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

from abstractllm_client import AsyncRemoteLLM, Finished, TextDelta
from benchmarks.results import Figure, Results, figure, positive, run, versions
from tools.demo import serving

PROMPT = "Tell me a story about a cat."


@dataclass(frozen=True)
class Measurement:
    """One answer: seconds to the first text, and output tokens as the server counts them."""

    first_token: float
    output_tokens: int


async def answer(llm: AsyncRemoteLLM, max_tokens: int) -> Measurement:
    """Streams one sampled answer and measures it."""
    start = time.perf_counter()
    first_token = 0.0
    output_tokens = 0
    async for event in llm.stream(PROMPT, max_tokens=max_tokens, temperature=1.0):
        if isinstance(event, TextDelta) and not first_token:
            first_token = time.perf_counter() - start
        elif isinstance(event, Finished):
            output_tokens = event.usage.output_tokens or 0
    return Measurement(first_token, output_tokens)


async def measure(address: str, callers: int, answers: int, max_tokens: int) -> list[Figure]:
    """Lets `callers` callers stream `answers` answers each, all at once."""
    async with AsyncRemoteLLM(address) as llm:
        await answer(llm, max_tokens=4)

        async def caller() -> list[Measurement]:
            return [await answer(llm, max_tokens) for _ in range(answers)]

        start = time.perf_counter()
        by_caller = await asyncio.gather(*(caller() for _ in range(callers)))
        seconds = time.perf_counter() - start
    measurements = list(chain.from_iterable(by_caller))
    rate = sum(measurement.output_tokens for measurement in measurements) / seconds
    name = f"{callers} caller{'s' * (callers > 1)}"
    first_tokens = [1000 * measurement.first_token for measurement in measurements]
    return [figure("Output tokens a second", name, "tokens/s", [rate]), figure("First token", name, "ms", first_tokens)]


def measure_all(options: argparse.Namespace) -> Results:
    """Measures each number of callers."""
    server = nullcontext((None, options.address)) if options.address else serving(options.port)
    figures: list[Figure] = []
    with server as (_, address):
        for callers in options.callers:
            figures += asyncio.run(measure(address, callers, options.answers, options.max_tokens))
    figures.sort(key=lambda one: one.unit == "ms")
    return Results(figures, versions("abstractllm-grpc", "grpcio", "torch", "transformers"))


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="a running server; without it one is started with the demo model")
    parser.add_argument("--port", type=int, default=50051, help="port of the server that is started")
    parser.add_argument("--callers", type=positive, nargs="+", default=[1, 4, 16], help="numbers of callers")
    parser.add_argument("--answers", type=positive, default=4, help="answers for each caller")
    parser.add_argument("--max-tokens", type=positive, default=64, help="length of an answer")
    return run(parser, measure_all)


if __name__ == "__main__":
    sys.exit(main())
