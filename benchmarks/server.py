"""The time that the server adds to the library: the same calls in one process, and over gRPC.

    .venv/bin/python -m benchmarks.server [--rounds 3] [--seconds 1.5]

First an LLM without a model, which says its text at once, so that the way alone is measured; then a model in its engine
process. The library and the server's client are each a process of their own; the ways take turns in several rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from benchmarks.processes import cpu_seconds, our_server
from benchmarks.results import Figure, Results, figure, rounds, run, versions
from benchmarks.serving.model import build_model
from benchmarks.serving.systems import System, in_process, ours
from benchmarks.serving.workload import Figures, Workload

WORDS = 32
"""Words of the answer without a model, each a piece of its stream."""
REPLY = " ".join(f"w{number}" for number in range(WORDS))
LIBRARY, SERVER = "library", "server"
Call = Callable[[], Awaitable[None]]


# The caller of the LLM without a model, in a process of its own.


@contextlib.asynccontextmanager
async def library_call(streaming: bool) -> AsyncIterator[Call]:
    """Yields a call of the library."""
    from abstractllm import TextDelta, create_llm

    async with create_llm("scripted") as llm:

        async def call() -> None:
            if not streaming:
                assert (await llm.complete_async(REPLY)).text == REPLY
                return
            assert sum([isinstance(event, TextDelta) async for event in llm.stream_async(REPLY)]) == WORDS

        yield call


@contextlib.asynccontextmanager
async def server_call(address: str, streaming: bool) -> AsyncIterator[Call]:
    """Yields a call of the server, by the generated stub."""
    from grpc import aio

    from abstractllm_api.v1 import generation_pb2 as pb
    from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub

    async with aio.insecure_channel(address) as channel:
        stub = GenerationServiceStub(channel)
        request = pb.GenerateRequest(prompt=REPLY)

        async def call() -> None:
            if not streaming:
                assert (await stub.Generate(request)).text == REPLY
                return
            assert sum([event.HasField("text_delta") async for event in stub.StreamGenerate(request)]) == WORDS

        yield call


async def call_for_a_while(address: str, streaming: bool, clients: int, seconds: float) -> dict[str, float]:
    """Calls for some seconds, after a third as many that warm up.

    Args:
        address: The server; the library is called where it is empty.
        streaming: True to stream.
        clients: Calls at a time.
        seconds: The time.

    Returns:
        Calls per second, and milliseconds of the median call and of the slowest of a hundred.
    """
    times: list[float] = []
    end = 0.0
    async with server_call(address, streaming) if address else library_call(streaming) as call:

        async def client() -> None:
            while (began := time.perf_counter()) < end:
                await call()
                times.append(time.perf_counter() - began)

        for phase in (seconds / 3, seconds):
            times.clear()
            began = time.perf_counter()
            end = began + phase
            await asyncio.gather(*(client() for _ in range(clients)))
        took = time.perf_counter() - began
    slowest = statistics.quantiles(times, n=100)[-1] if len(times) > 1 else times[0]
    return {
        "rate": len(times) / took,
        "median": 1e3 * statistics.median(times),
        "p99": 1e3 * slowest,
        "calls": len(times),
    }


def in_own_process(address: str, streaming: bool, clients: int, seconds: float) -> dict[str, float]:
    """Runs `call_for_a_while` in a process of its own.

    Raises:
        RuntimeError: If a call failed.
    """
    values = {"address": address, "streaming": streaming, "clients": clients, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.server", "--caller", json.dumps(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"calling {address or 'the library'} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def without_model(times: int, seconds: float, clients: list[int]) -> list[Figure]:
    """Measures the LLM without a model."""
    cases = [(streaming, count) for streaming in (False, True) for count in clients]
    runs: dict[tuple[bool, int, str], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        our_server(Path(folder), {"echo": {"provider": "scripted"}}) as (address, process),
    ):
        for _ in rounds(times, share=0.6):
            for streaming, count in cases:
                for way in (LIBRARY, SERVER):
                    before = cpu_seconds(process)
                    result = in_own_process(address if way == SERVER else "", streaming, count, seconds)
                    # A third as many calls again warmed up.
                    result["cpu"] = 1e3 * (cpu_seconds(process) - before) / result["calls"] * 3 / 4
                    runs.setdefault((streaming, count, way), []).append(result)
    figures = []
    for table, unit, key in (
        ("Calls a second, without a model", "calls/s", "rate"),
        ("Time of the median call, without a model", "ms", "median"),
        ("Time of the slowest of a hundred calls, without a model", "ms", "p99"),
    ):
        for (streaming, count, way), results in runs.items():
            name = f"{way}, {f'{WORDS} streamed pieces' if streaming else 'unary'}, {count} at a time"
            library = [one[key] for one in runs[streaming, count, LIBRARY]]
            values = [one[key] for one in results]
            over = library if way == SERVER else None
            figures.append(figure(table, name, unit, values, over=over, to="the library"))
    for (streaming, count, way), results in runs.items():
        if way == SERVER:
            name = f"{f'{WORDS} streamed pieces' if streaming else 'unary'}, {count} at a time"
            figures.append(
                figure("CPU of the server for a call, without a model", name, "ms", [one["cpu"] for one in results])
            )
    return figures


def with_model(times: int, clients: list[int]) -> list[Figure]:
    """Measures the model in its engine process, streaming."""
    runs: dict[tuple[int, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        build_model(folder)
        systems = {
            LIBRARY: stack.enter_context(in_process(folder, 1)),
            SERVER: stack.enter_context(ours(folder, 1)),
        }
        for number in rounds(times + 1, 2):
            for count in clients:
                for way in (LIBRARY, SERVER) if number % 2 else (SERVER, LIBRARY):
                    figures = _answers(systems[way], count, number)
                    if number:
                        runs.setdefault((count, way), []).append(figures)
    return [
        *_of_model("Tokens a second, of the model", "tokens/s", runs),
        *_of_model("First token, of the model", "ms", runs),
    ]


def _answers(system: System, clients: int, number: int) -> Figures:
    answers = 1 if number == 0 else max(1, 4 // clients)
    return system.run(Workload(clients, answers, new_tokens=8 if number == 0 else 64, salt=1000 * number + clients))


def _of_model(table: str, unit: str, runs: dict[tuple[int, str], list[Figures]]) -> list[Figure]:
    def value(one: Figures) -> float:
        return one.tokens_per_second if unit == "tokens/s" else one.first_token_ms or 0.0

    figures = []
    for count in dict.fromkeys(count for count, _ in runs):
        for way in (LIBRARY, SERVER):
            over = [value(one) for one in runs[count, LIBRARY]] if way == SERVER else None
            values = [value(one) for one in runs[count, way]]
            figures.append(figure(table, f"{way}, {count} at a time", unit, values, over=over, to="the library"))
    return figures


def measure(options: argparse.Namespace) -> Results:
    """Measures both."""
    return Results(
        [
            *without_model(options.rounds, options.seconds, options.clients),
            *with_model(options.rounds, options.clients),
        ],
        versions("abstractllm-grpc", "grpcio", "protobuf", "torch", "transformers"),
    )


def main() -> int:
    """Runs the command line; with `--caller` only the caller's part."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.server", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64], help="calls at a time (1 64)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement without a model (1.5)")
    parser.add_argument("--caller", type=json.loads, help=argparse.SUPPRESS)
    if (caller := parser.parse_known_args()[0].caller) is not None:
        print(json.dumps(asyncio.run(call_for_a_while(**caller))))
        return 0
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
