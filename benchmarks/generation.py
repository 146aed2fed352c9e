"""Measures generation through gRPC: time to first token and output tokens per second, by number of callers.

    make bench
    .venv/bin/python -m benchmarks.generation --address HOST:PORT --callers 1 4 16

Without an address it starts a server with the demo model, and stops it at the end. The figures hold for this machine
and this model alone; compare them with figures of the same machine only.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

from abstractllm_client import AsyncRemoteLLM, Finished, TextDelta
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


async def measure(address: str, callers: int, answers: int, max_tokens: int) -> str:
    """Lets `callers` callers stream `answers` answers each, all at once; returns a line of the table."""
    async with AsyncRemoteLLM(address) as llm:
        await answer(llm, max_tokens=4)

        async def caller() -> list[Measurement]:
            return [await answer(llm, max_tokens) for _ in range(answers)]

        start = time.perf_counter()
        by_caller = await asyncio.gather(*(caller() for _ in range(callers)))
        seconds = time.perf_counter() - start
    measurements = list(chain.from_iterable(by_caller))
    first = statistics.median(measurement.first_token for measurement in measurements) * 1000
    rate = sum(measurement.output_tokens for measurement in measurements) / seconds
    return f"{callers:>7} {len(measurements):>8} {first:>21.0f} {rate:>22.0f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="a running server; without it one is started with the demo model")
    parser.add_argument("--port", type=int, default=50051, help="port of the server that is started")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16], help="numbers of callers")
    parser.add_argument("--answers", type=int, default=4, help="answers for each caller")
    parser.add_argument("--max-tokens", type=int, default=64, help="length of an answer")
    arguments = parser.parse_args()
    server = nullcontext((None, arguments.address)) if arguments.address else serving(arguments.port)
    with server as (_, address):
        print("callers  answers  first token (ms, p50)  output tokens / second")
        for callers in arguments.callers:
            print(asyncio.run(measure(address, callers, arguments.answers, arguments.max_tokens)), flush=True)


if __name__ == "__main__":
    main()
