"""Throughput of each language's client: many streams at once over one connection, of a server without a model.

    .venv/bin/python -m benchmarks.clients [--streams 64] [--rounds 5]

The server's LLM is scripted: it says each prompt back word by word, at once, so that the figures tell of clients and
server alone. Each client is the runner of the interop suite in a process of its own, and runs the behaviour `many`. The
clients are run in turn, and each round begins with another one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.processes import cpu_seconds, our_server
from benchmarks.results import Figure, Results, figure, positive, rounds, run, versions
from tests.clients.toolchains import missing
from tests.interop.languages import LANGUAGES, ROOT
from tests.interop.runner import Runner

TITLES = {"python": "Python (`AsyncRemoteLLM`)", "go": "Go", "java": "Java", "node": "Node"}


@dataclass(frozen=True)
class Round:
    """The figures of one run of one client."""

    pieces_per_second: float
    first_piece_ms: float
    client_us: float
    """CPU time of the client for a piece, in microseconds."""
    server_us: float
    """CPU time of the server for a piece, in microseconds."""


def measure(runner: Runner, server: psutil.Process, address: str, streams: int, answers: int, words: int) -> Round:
    """Runs one client once.

    Raises:
        RuntimeError: If an answer was wrong.
    """
    client = psutil.Process(runner.pid)
    before = cpu_seconds(client), cpu_seconds(server)
    workload = {"llm": "echo", "streams": streams, "answers": answers, "words": words}
    result = runner.run({"behaviour": "many", "input": workload, "servers": {"plain": address}}, lambda _: None)
    if result["right"] != streams * answers:
        raise RuntimeError(f"{result['right']} of {streams * answers} answers are right")
    after = cpu_seconds(client), cpu_seconds(server)
    pieces = result["pieces"]
    return Round(
        pieces_per_second=pieces / result["seconds"],
        first_piece_ms=1e3 * result["first_piece_seconds"],
        client_us=1e6 * (after[0] - before[0]) / pieces,
        server_us=1e6 * (after[1] - before[1]) / pieces,
    )


def figures(by_client: dict[str, list[Round]]) -> list[Figure]:
    """Returns the figures of all clients, each over the first one's."""
    first = next(iter(by_client))
    lines = []
    for table, unit, field in (
        ("Pieces a second", "pieces/s", "pieces_per_second"),
        ("First piece", "ms", "first_piece_ms"),
        ("CPU of the client for a piece", "us", "client_us"),
        ("CPU of the server for a piece", "us", "server_us"),
    ):
        values = {name: [float(getattr(one, field)) for one in runs] for name, runs in by_client.items()}
        for name, runs in values.items():
            over = None if name == first else values[first]
            lines.append(figure(table, TITLES[name], unit, runs, over=over, to=TITLES[first]))
    return lines


def measure_all(options: argparse.Namespace) -> Results:
    """Runs every client whose tools are there, in turns.

    Raises:
        RuntimeError: If an answer was wrong.
    """
    by_client: dict[str, list[Round]] = {}
    notes = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, server = stack.enter_context(our_server(folder / "server", {"echo": {"provider": "scripted"}}))
        runners: dict[str, Runner] = {}
        for name, language in LANGUAGES.items():
            if lacking := missing(name):
                notes.append(f"{TITLES[name]} was not measured: {', '.join(lacking)} not found.")
                continue
            (folder / name).mkdir()
            runners[name] = Runner(language.build(folder / name), ROOT, folder / name / "log")
            stack.callback(runners[name].stop)
        load = (options.streams, options.answers, options.words)
        for name, runner in runners.items():
            measure(runner, server, address, *load)  # warms up what is compiled while it runs
            by_client[name] = []
        names = list(runners)
        for index in rounds(options.rounds):
            for name in names[index % len(names) :] + names[: index % len(names)]:
                by_client[name].append(measure(runners[name], server, address, *load))
    known = versions("abstractllm-client", "grpcio", "protobuf") | dict(_tools(by_client))
    return Results(figures(by_client), known, notes)


def _tools(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the versions of the languages' tools."""
    for name, command in (("go", ["go", "version"]), ("java", ["java", "-version"]), ("node", ["node", "--version"])):
        if name in names:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if number := re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr):
                yield name, number[0]


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.clients", description="Measure the throughput of each language's client."
    )
    parser.add_argument("--streams", type=positive, default=64, help="streams at once (64)")
    parser.add_argument("--answers", type=positive, default=2, help="answers of each stream (2)")
    parser.add_argument("--words", type=positive, default=200, help="pieces of each answer (200)")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each client is run (5)")
    return run(parser, measure_all)


if __name__ == "__main__":
    sys.exit(main())
