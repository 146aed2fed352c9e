"""The time and the memory that Ray Serve takes: the same LLM behind the plain server, and in two replicas.

    .venv/bin/python -m benchmarks.ray [--rounds 3] [--seconds 2]

The LLM has no model and says its text at once, so that the way alone is measured. Both servers run all the time and are
called in turn, so that each round's ratio is of the same minute; the caller is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.processes import our_server
from benchmarks.results import Figure, Results, figure, positive, rounds, run, versions
from benchmarks.server import WORDS, in_own_process

REPLICAS = 2
_READY_SECONDS = 120.0
_PLAIN, _RAY = "plain server", "Ray Serve"
_LINE = {"provider": "scripted"}
_RAY_LINE = {
    "provider": "ray",
    "serves": "scripted",
    "ray_address": "local",
    "ray_cpus": 4,
    "replicas": REPLICAS,
    "num_cpus": 0.1,
}


def until_ready(log: Path) -> float:
    """Waits until a server's LLM is ready; returns the seconds that it took.

    Raises:
        RuntimeError: If it does not become so.
    """
    began = time.monotonic()
    while True:
        text = log.read_text("utf-8", errors="replace")
        if re.search(r"LLM \S+ \(.*\) is ready", text):
            return time.monotonic() - began
        if time.monotonic() - began > _READY_SECONDS:
            raise RuntimeError(f"the LLM is not ready after {_READY_SECONDS:.0f} seconds:\n{text[-2000:]}")
        time.sleep(0.1)


def memory(process: psutil.Process) -> float:
    """Returns the MiB of a process and all that it has started; what several share counts once."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            facts = member.memory_full_info()
            total += getattr(facts, "pss", facts.uss)
    return total / 2**20


def measure(options: argparse.Namespace) -> Results:
    """Measures both servers in turn."""
    cases = [(streaming, clients) for streaming in (False, True) for clients in options.clients]
    runs: dict[tuple[bool, int, str], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        our_server(Path(folder, "plain"), {"it": _LINE}) as (plain, plain_process),
        our_server(Path(folder, "ray"), {"it": _RAY_LINE}) as (ray, ray_process),
    ):
        start = until_ready(Path(folder, "ray", "server.log"))
        until_ready(Path(folder, "plain", "server.log"))
        at_rest = {_PLAIN: memory(plain_process), _RAY: memory(ray_process)}
        for number in rounds(options.rounds):
            ways = [(_PLAIN, plain), (_RAY, ray)]
            for way, address in ways if number % 2 == 0 else reversed(ways):
                for streaming, clients in cases:
                    result = in_own_process(address, streaming, clients, options.seconds)
                    runs.setdefault((streaming, clients, way), []).append(result)
        in_use = {_PLAIN: memory(plain_process), _RAY: memory(ray_process)}
    figures = [one for case in cases for one in _of_case(runs, *case)]
    table = "Memory and start"
    for name, values in (("at rest", at_rest), ("after the calls", in_use)):
        figures.append(figure(table, f"{_PLAIN}, {name}", "MiB", [values[_PLAIN]]))
        figures.append(figure(table, f"{_RAY}, {name}", "MiB", [values[_RAY]], over=[values[_PLAIN]], to=_PLAIN))
    figures.append(figure(table, f"start of Ray, Ray Serve and {REPLICAS} replicas", "s", [start]))
    notes = [
        f"The LLM has no model; an answer has {WORDS} words, each a piece of its stream. All of Ray runs on this "
        f"machine, with {REPLICAS} replicas. Memory is that of the server and all that it has started: what processes "
        "share counts once."
    ]
    return Results(figures, versions("ray", "grpcio", "protobuf"), notes)


def _of_case(runs: dict[tuple[bool, int, str], list[dict[str, float]]], streaming: bool, clients: int) -> list[Figure]:
    """Returns the figures of one kind of call, with one number of clients."""
    kind = "streamed" if streaming else "unary"
    at_once = "one call at a time" if clients == 1 else f"{clients} calls at a time"
    plain, ray = (runs[streaming, clients, way] for way in (_PLAIN, _RAY))
    rows = []
    for table, key, unit in (("Time of a call", "median", "ms"), ("Calls a second", "rate", "calls/s")):
        name, before = f"{kind}, {at_once}", [one[key] for one in plain]
        rows.append(figure(table, f"{_PLAIN}, {name}", unit, before))
        rows.append(figure(table, f"{_RAY}, {name}", unit, [one[key] for one in ray], over=before, to=_PLAIN))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="benchmarks.ray", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case, in each round")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 16])
    sys.exit(run(parser, measure))
