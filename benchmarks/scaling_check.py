"""Holds the simulation of replicas against real servers: one, and two, under load that does not wait for answers.

    .venv/bin/python -m benchmarks.scaling_check [--loads 0.5 0.8] [--seconds 10]

Each server with its engine is held to a CPU core of its own, where the system lets us. Step times are measured on them
before and after each load, all of them busy at a time, since cores share memory. Under load requests come at random
times, at some part of what the servers can do, to one server after another; the same requests, at the times at which
they were really sent, go through the simulation. The error is what a simulated figure is over the measured one.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from grpc import StatusCode, aio

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1.generation_pb2_grpc import GenerationServiceStub
from benchmarks.processes import our_server
from benchmarks.results import Figure, Results, figure, positive, run, versions
from benchmarks.serving.model import build_model
from benchmarks.serving.workload import StreamTimes, Workload, step_ms
from benchmarks.simulation.replica import Limits, Request, StepTimes
from benchmarks.simulation.run import Fleet, quantile, simulate
from benchmarks.simulation.traffic import Length, Traffic

PLACES = 16
LIMITS = Limits(PLACES)
ROWS = (1, 4, 16)
PROMPT, ANSWER = Length(64, 0.8, most=256), Length(40, 0.5, most=128)
_LONG_PROMPT, _SHORT_PROMPT, _ANSWERS = 384, 16, 4
_USUAL_PROMPT = 64
"""Steps take longer with longer conversations: they are measured with prompts as they come."""
_MIXED = (8, 16, 24, 32, 40, 48)
"""Tokens of the answers of a full server: different ones, so that prompts are read beside growing answers."""


@dataclass
class Sent:
    """A request that was sent, and what came of it: all times in seconds."""

    request: Request
    """The request, with the time at which it was really sent."""
    first_token: float = -1.0
    ended: float = -1.0
    tokens: int = 0
    pieces: list[tuple[float, int]] = field(default_factory=list)


@contextmanager
def servers(folder: Path, count: int) -> Iterator[list[str]]:
    """Starts servers of one model, each on a core of its own; yields their addresses."""
    line = {"provider": "huggingface", "model": str(folder), "threads": 1, "max_batch_size": PLACES}
    with ExitStack() as stack:
        yield [
            stack.enter_context(our_server(folder / str(place), {"local": line}, core=place))[0]
            for place in range(count)
        ]


class Client:
    """A client of some servers, which it takes in turns.

    Args:
        addresses: The servers.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._salt = 0

    async def __aenter__(self) -> Client:
        """Connects."""
        self._stack = AsyncExitStack()
        channels = [await self._stack.enter_async_context(aio.insecure_channel(one)) for one in self._addresses]
        self._stubs = [GenerationServiceStub(channel) for channel in channels]
        return self

    async def __aexit__(self, *error: object) -> None:
        """Closes the connections."""
        await self._stack.aclose()

    async def ask(self, place: int, request: Request, began: float) -> Sent:
        """Asks one server."""
        # Words that no earlier prompt began with, so that nothing of it is in the cache.
        self._salt += 1
        text = Workload(1, prompt_tokens=request.prompt_tokens, salt=self._salt).text(0)
        parameters = pb.GenerationParameters(max_tokens=request.answer_tokens, temperature=0.0)
        sent_at = time.perf_counter() - began
        sent = Sent(Request(request.number, sent_at, request.prompt_tokens, request.answer_tokens))
        try:
            async for event in self._stubs[place].StreamGenerate(
                pb.GenerateRequest(prompt=text, parameters=parameters)
            ):
                if event.HasField("text_delta"):
                    now = time.perf_counter() - began
                    sent.first_token = now if sent.first_token < 0 else sent.first_token
                    sent.tokens += event.text_delta.text.count("w")
                    sent.pieces.append((now, sent.tokens))
        except aio.AioRpcError as error:
            if error.code() != StatusCode.RESOURCE_EXHAUSTED:
                raise
            return sent
        sent.ended = time.perf_counter() - began
        if sent.tokens != request.answer_tokens:
            raise RuntimeError(f"{sent.tokens} tokens came, {request.answer_tokens} were wanted")
        return sent

    async def at_once(self, rows: int, prompt: int, lengths: Sequence[int], answers: int = 1) -> list[list[Sent]]:
        """Keeps a number of answers growing on each server at the same time; returns the requests of each server."""
        began = time.perf_counter()

        async def caller(place: int, number: int) -> list[Sent]:
            mine = [lengths[(number + turn) % len(lengths)] for turn in range(answers)]
            return [await self.ask(place, Request(0, 0.0, prompt, length), began) for length in mine]

        async def server(place: int) -> list[Sent]:
            every = await asyncio.gather(*(caller(place, number) for number in range(rows)))
            return [one for sent in every for one in sent]

        return await asyncio.gather(*(server(place) for place in range(len(self._stubs))))

    async def open_loop(self, traffic: Traffic) -> list[Sent]:
        """Sends requests at the times of their arrival, whatever has become of the earlier ones."""
        began = time.perf_counter()
        tasks = []
        for request in traffic.requests():
            await asyncio.sleep(max(0.0, request.arrived - (time.perf_counter() - began)))
            tasks.append(asyncio.create_task(self.ask(request.number % len(self._stubs), request, began)))
        return await asyncio.gather(*tasks)


@dataclass(frozen=True)
class Measured:
    """The times that the simulation is told: the steps', and what a call takes beside, there and back."""

    times: StepTimes
    call: float

    def mean(self, other: Measured) -> Measured:
        """Returns the means of two measurements."""
        pairs = zip(self.times.points, other.times.points, strict=True)
        points = tuple((rows, (one + two) / 2) for (rows, one), (_, two) in pairs)
        prompt_token = (self.times.prompt_token + other.times.prompt_token) / 2
        request = (self.times.request + other.times.request) / 2
        return Measured(StepTimes(points, prompt_token, request), (self.call + other.call) / 2)


async def calibrate(client: Client) -> Measured:
    """Measures the times of the servers while all of them are busy."""
    await client.at_once(PLACES, _SHORT_PROMPT, [4])  # warms up
    points = []
    for rows in ROWS:
        steps = []
        for _ in range(2):
            for sent in await client.at_once(rows, _USUAL_PROMPT, [48]):
                streams = [StreamTimes(one.request.arrived, one.pieces) for one in sent]
                steps.append(step_ms(streams) or 0.0)
        points.append((rows, statistics.median(steps) / 1000))
    first_tokens: dict[int, list[float]] = {_LONG_PROMPT: [], _SHORT_PROMPT: []}
    for _ in range(5):
        for prompt, seconds in first_tokens.items():
            for sent in await client.at_once(1, prompt, [1]):
                seconds += [one.first_token - one.request.arrived for one in sent]
    long, short = (statistics.median(seconds) for seconds in first_tokens.values())
    prompt_token = max(0.0, (long - short) / (_LONG_PROMPT - _SHORT_PROMPT))
    step = StepTimes(tuple(points)).seconds(PLACES)
    # A full server's time for a request, less what its tokens take.
    beside = []
    for sent in await client.at_once(PLACES, _USUAL_PROMPT, _MIXED, _ANSWERS):
        # Up to the first caller's last answer all places are taken.
        end = min(one.ended for one in sent[_ANSWERS - 1 :: _ANSWERS])
        done = sum(max((tokens for when, tokens in one.pieces if when <= end), default=0) for one in sent)
        begun = sum(one.first_token <= end for one in sent)
        began = min(one.request.arrived for one in sent)
        beside.append((end - began - done * step / PLACES) / begun - _USUAL_PROMPT * prompt_token)
    request = max(0.0, statistics.fmean(beside))
    times = StepTimes(tuple(points), prompt_token, request)
    return Measured(times, max(0.0, short - times.seconds(0, _SHORT_PROMPT, 1)))


def capacity(times: StepTimes) -> float:
    """Returns the requests a second that one full server answers."""
    seconds = ANSWER.mean * times.seconds(PLACES) / PLACES + PROMPT.mean * times.prompt_token + times.request
    return 1 / seconds


def compare(table: str, sent: Sequence[Sent], replicas: int, known: Measured) -> list[Figure]:
    """Returns the measured figures of a load, and the simulated ones over them."""
    requests = sorted((one.request for one in sent), key=lambda request: request.number)
    fleet = Fleet(replicas, known.times, LIMITS, call_seconds=known.call)
    outcome = simulate(
        fleet, [Request(one.number, one.arrived, one.prompt_tokens, one.answer_tokens) for one in requests]
    )
    answered = [one for one in sent if one.ended >= 0]
    first_tokens = sorted(one.first_token - one.request.arrived for one in answered)
    durations = sorted(one.ended - one.request.arrived for one in answered)
    simulated = sorted(one.ended - one.arrived + known.call for one in outcome.answered)
    rows = [
        (
            "tokens a second",
            "tokens/s",
            sum(one.tokens for one in answered) / max(one.ended for one in answered),
            sum(one.answer_tokens for one in outcome.answered) / outcome.seconds,
        )
    ]
    for name, share in (("half of them", 0.5), ("95 % of them", 0.95)):
        rows.append(
            (
                f"first token, {name} within",
                "ms",
                1e3 * quantile(first_tokens, share),
                1e3 * quantile(outcome.first_tokens(), share),
            )
        )
        rows.append(
            (f"whole answer, {name} within", "ms", 1e3 * quantile(durations, share), 1e3 * quantile(simulated, share))
        )
    figures = []
    for name, unit, measured, predicted in rows:
        figures.append(figure(table, f"{name}, measured", unit, [measured]))
        figures.append(figure(table, f"{name}, simulated", unit, [predicted], over=[measured], to="measured"))
    if refused := len(sent) - len(answered):
        figures.append(figure(table, "refused, measured", "", [refused]))
        figures.append(figure(table, "refused, simulated", "", [outcome.refused], over=[refused], to="measured"))
    return figures


async def check(addresses: Sequence[str], options: argparse.Namespace) -> AsyncIterator[Figure]:
    """Yields the figures of a number of servers."""
    count = len(addresses)
    replicas = f"{count} replica{'s' * (count > 1)}"
    async with Client(addresses) as client:
        known = [await calibrate(client)]
        for load in options.loads:
            rate = load * count * capacity(known[-1].times)
            sent = await client.open_loop(Traffic(rate, options.seconds, PROMPT, ANSWER, seed=options.seed))
            known.append(await calibrate(client))
            around = known[-2].mean(known[-1])
            actual = len(sent) / options.seconds / count / capacity(around.times)
            title = f"{replicas}, {load:.0%} of what they can do"
            yield figure(title, "part of what they can do, in fact", "", [actual])
            for one in compare(title, sent, count, around):
                yield one
    table = f"{replicas}: the times that the simulation is told"
    for place, rows in enumerate(ROWS):
        steps = [1e3 * one.times.points[place][1] for one in known]
        yield figure(table, f"step of {rows} answer{'s' * (rows > 1)}", "ms", steps)
    yield figure(table, "further time for a prompt's token", "us", [1e6 * one.times.prompt_token for one in known])
    yield figure(table, "further time for a request", "ms", [1e3 * one.times.request for one in known])
    yield figure(table, "a call beside the engine", "ms", [1e3 * one.call for one in known])


def measure(options: argparse.Namespace) -> Results:
    """Checks each number of servers."""

    async def collect(addresses: Sequence[str]) -> list[Figure]:
        return [one async for one in check(addresses, options)]

    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder)
        for count in options.replicas:
            with servers(folder, count) as addresses:
                figures += asyncio.run(collect(addresses))
    note = (
        f"Prompts of {PROMPT.mean} tokens and answers of {ANSWER.mean} in the mean, log-normal; Poisson arrivals for "
        f"{options.seconds} s, seed {options.seed}; {PLACES} places and a queue of {LIMITS.max_queue} on each replica."
    )
    return Results(figures, versions("abstractllm-grpc", "grpcio", "torch", "transformers"), [note])


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scaling_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=positive, nargs="+", default=[1, 2], help="numbers of servers (1 2)")
    parser.add_argument(
        "--loads", type=float, nargs="+", default=[0.5, 0.8], help="parts of what they can do (0.5 0.8)"
    )
    parser.add_argument("--seconds", type=positive, default=12, help="of arrivals, for each load (12)")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and lengths (1)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
