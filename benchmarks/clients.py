"""Throughput of each language's client: many streams at once over one connection, of a server without a model.

    .venv/bin/python -m benchmarks.clients [--streams 64] [--rounds 5] [--markdown]

The server's LLM is scripted: it says each prompt back word by word, at once, so that the figures tell of clients and
server alone. Each client is the runner of the interop suite in a process of its own, and runs the behaviour `many`. The
clients are run in turn, and each round begins with another one.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.clients.toolchains import missing
from tests.interop.languages import LANGUAGES, ROOT
from tests.interop.runner import Runner


@dataclass(frozen=True)
class Round:
    """The figures of one run of one client."""

    pieces_per_second: float
    first_piece_ms: float
    client_us: float
    """CPU time of the client for a piece, in microseconds."""
    server_us: float
    """CPU time of the server for a piece, in microseconds."""


@contextmanager
def scripted_server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Starts a server whose LLM `echo` says what it is told; yields the server's address and its process."""
    config, log = folder / "llms.yaml", folder / "server.log"
    config.write_text("llms:\n  echo: {provider: scripted}\nlisten: 127.0.0.1:0\n", "utf-8")
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(config)]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as server:
        try:
            while not (announcement := re.search(r"listening on (\S+)", log.read_text("utf-8"))):
                if server.poll() is not None:
                    raise RuntimeError(log.read_text("utf-8"))
                time.sleep(0.1)
            yield announcement[1], psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait(60)


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the CPU time that a process has taken so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


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


def table(rounds: dict[str, list[Round]], markdown: bool) -> list[str]:
    """Returns the lines of the table: a head, and the medians of each client."""
    heads = ("client", "pieces/s", "of the first", "first piece, ms", "client CPU, us", "server CPU, us")
    rows: list[tuple[str, ...]] = [heads]
    if markdown:
        rows.append(tuple("---" for _ in heads))
    first = next(iter(rounds))
    for name, runs in rounds.items():
        ratio = statistics.median(
            run.pieces_per_second / first_run.pieces_per_second
            for run, first_run in zip(runs, rounds[first], strict=True)
        )
        rows.append(
            (
                name,
                f"{statistics.median(run.pieces_per_second for run in runs):,.0f}",
                f"{ratio:.2f}",
                f"{statistics.median(run.first_piece_ms for run in runs):.0f}",
                f"{statistics.median(run.client_us for run in runs):.0f}",
                f"{statistics.median(run.server_us for run in runs):.0f}",
            )
        )
    if markdown:
        return [f"| {' | '.join(row)} |" for row in rows]
    return ["".join(f"{word:>18}" for word in row) for row in rows]


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Measure the throughput of each language's client.")
    parser.add_argument("--streams", type=int, default=64, help="streams at once (64)")
    parser.add_argument("--answers", type=int, default=2, help="answers of each stream (2)")
    parser.add_argument("--words", type=int, default=200, help="pieces of each answer (200)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each client is run (5)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    rounds: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, server = stack.enter_context(scripted_server(folder))
        runners: dict[str, Runner] = {}
        for name, language in LANGUAGES.items():
            if lacking := missing(name):
                print(f"{name} is left out: {', '.join(lacking)} not found", file=sys.stderr)
                continue
            (folder / name).mkdir()
            runners[name] = Runner(language.build(folder / name), ROOT, folder / name / "log")
            stack.callback(runners[name].stop)
        load = (arguments.streams, arguments.answers, arguments.words)
        for name, runner in runners.items():
            measure(runner, server, address, *load)  # warms up what is compiled while it runs
            rounds[name] = []
        names = list(runners)
        for index in range(arguments.rounds):
            for name in names[index % len(names) :] + names[: index % len(names)]:
                rounds[name].append(measure(runners[name], server, address, *load))
    print("\n".join(table(rounds, arguments.markdown)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
