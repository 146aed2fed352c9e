"""Calls over three servers, one of them slowed: the time that 95 of 100 callers wait at most, by client and policy.

    .venv/bin/python -m benchmarks.balancing [--rounds 1] [--seconds 22] [--slowdown 5] [--languages go java]

Every server is a process of its own behind a name of a DNS server on the loopback interface, and every client calls it
at a steady rate through its own gRPC. Answers take their time by waiting, so that the servers need next to nothing of
the machine. Three programs of a language run at the same time: one calls two servers, the others call two such servers
and a third one that is slower, in turn and by gRPC's weighted round robin. So whatever else the machine does, it does
to all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import Figure, Results, Target, figure, positive, rounds, run, versions
from tests.balancing.name_server import name_server
from tests.balancing.programs import BUILDS, Call, Program
from tests.balancing.servers import Fleet, fleet
from tests.clients.toolchains import missing

TITLES = {"go": "Go", "java": "Java", "python": "Python", "node": "Node"}
_FAST, _ALL = ("a", "b"), ("a", "b", "c")
_SLOW = "c"
_WAYS = {
    "two": ("round_robin", _FAST),
    "turns": ("round_robin", _ALL),
    "weights": ("weighted_round_robin", _ALL),
}
"""By name: the policy, and the servers that are called."""
_WORDS = 3
_MOST = 1.3
"""The bound of the time with a slow server, by weights, over that with the two fast ones alone."""
_CALLS_A_SECOND = 40.0
"""By weights 2 to 4 of 100 calls go to the slow server: of few calls it is more than 5 by chance, and p95 its own."""
_WARM_UP = 10.0
"""Seconds in which clients and servers learn what is to be known; not counted."""
_TABLE = "95 of 100 calls are answered within"
_SHARES = "Calls that the slow server gets"


@dataclass
class _Runs:
    """The figures of each round of one client: by way, the time in milliseconds and the slow server's share."""

    p95: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in _WAYS})
    share: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in _WAYS})
    errors: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def add(self, way: str, calls: Sequence[Call]) -> None:
        """Adds the calls of a round."""
        self.calls += len(calls)
        self.errors.update(call.error for call in calls if call.error)
        counted = [call for call in calls if call.at >= _WARM_UP and not call.error]
        if len(counted) < 20:
            raise RuntimeError(f"{len(counted)} calls were answered; the errors were {dict(self.errors)}")
        self.p95[way].append(1000 * statistics.quantiles((call.seconds for call in counted), n=20)[-1])
        self.share[way].append(100 * sum(call.server == _SLOW for call in counted) / len(counted))


def measure(options: argparse.Namespace) -> Results:
    """Runs every client in every way, in rounds."""
    lacking = {name: missing(name) for name in options.languages}
    languages = [name for name in options.languages if not lacking[name]]
    notes = [f"{TITLES[name]} is not measured: no {', '.join(tools)}." for name, tools in lacking.items() if tools]
    runs = {name: _Runs() for name in languages}
    folder = Path(tempfile.mkdtemp(prefix="balancing"))
    try:
        commands: dict[str, Sequence[str]] = {}
        with ExitStack() as stack:
            fleets = {way: _start(stack, folder / way, servers, options) for way, (_, servers) in _WAYS.items()}
            for number in rounds(options.rounds * len(languages)):
                name = languages[number % len(languages)]
                if name not in commands:
                    (folder / name).mkdir()
                    commands[name] = BUILDS[name](folder / name)
                _round(name, commands[name], fleets, folder, options, runs[name])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    notes += [
        f"{TITLES[name]} is not measured: there was no time for it." for name in languages if not runs[name].calls
    ]
    notes.append(
        f"A fast server answers in {1000 * options.answer_seconds:.0f} ms, the slow one takes {options.slowdown:g} "
        f"times as long. A client makes {options.rate:g} calls a second for {options.seconds:g} seconds, of which the "
        f"first {_WARM_UP:g} are not counted."
    )
    notes.append(f"The machine has {os.cpu_count()} cores; the load on them was {os.getloadavg()[0]:.1f} at the end.")
    notes += [
        f"{TITLES[name]}: {one.errors.total()} of {one.calls} calls failed"
        + "".join(f"; {text}" for text in one.errors)
        for name, one in runs.items()
        if one.calls
    ]
    return Results(
        _figures({name: one for name, one in runs.items() if one.calls}),
        versions("grpcio", "abstractllm-client"),
        notes,
    )


def _start(stack: ExitStack, folder: Path, servers: Sequence[str], options: argparse.Namespace) -> Fleet:
    folder.mkdir()
    started = stack.enter_context(fleet(folder))
    for name in servers:
        seconds = options.answer_seconds * (options.slowdown if name == _SLOW else 1)
        started.start(name, seconds / _WORDS, words=_WORDS)
    return started


def _round(
    language: str,
    command: Sequence[str],
    fleets: Mapping[str, Fleet],
    folder: Path,
    options: argparse.Namespace,
    runs: _Runs,
) -> None:
    """Runs a client in every way at the same time."""
    with ExitStack() as stack:
        programs: dict[str, Program] = {}
        for way, (policy, servers) in _WAYS.items():
            addresses = [fleets[way].address(name) for name in servers]
            names = stack.enter_context(name_server(*addresses))
            programs[way] = Program(
                language,
                command,
                names,
                fleets[way].port,
                folder / way,
                load_balancing=policy,
                rate=options.rate,
                seconds=options.seconds,
            )
            stack.callback(programs[way].stop)
        for way, program in programs.items():
            runs.add(way, program.wait(options.seconds + 90))


def _figures(runs: Mapping[str, _Runs]) -> list[Figure]:
    figures = []
    for name, one in runs.items():
        title, two = TITLES[name], one.p95["two"]
        figures += [
            figure(_TABLE, f"{title}, two fast servers", "ms", two),
            figure(_TABLE, f"{title}, and a slow one, in turn", "ms", one.p95["turns"], over=two, to="two servers"),
            figure(
                _TABLE,
                f"{title}, and a slow one, by weights",
                "ms",
                one.p95["weights"],
                over=two,
                to="two servers",
                target=Target(most=_MOST, of="ratio"),
            ),
        ]
    for name, one in runs.items():
        figures += [
            figure(_SHARES, f"{TITLES[name]}, in turn", "%", one.share["turns"]),
            figure(_SHARES, f"{TITLES[name]}, by weights", "%", one.share["weights"]),
        ]
    return figures


def _above(least: float) -> Callable[[str], float]:
    """Returns what reads a number of the command line that is above a bound."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least
        if not least < value < 1e6:
            raise argparse.ArgumentTypeError(f"a number above {least:g} is needed, got {text!r}")
        return value

    return read


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.balancing", description="Measure what a slow server among three costs, by client and policy."
    )
    parser.add_argument("--languages", nargs="+", choices=list(TITLES), default=list(TITLES), help="the clients (all)")
    parser.add_argument("--rounds", type=positive, default=1, help="how often each client is run (1)")
    parser.add_argument("--seconds", type=_above(_WARM_UP + 2), default=22.0, help="seconds of a run (22)")
    parser.add_argument(
        "--rate", type=_above(0), default=_CALLS_A_SECOND, help="calls in a second of each program (40)"
    )
    parser.add_argument("--slowdown", type=_above(1), default=5.0, help="how much slower the third server is (5)")
    parser.add_argument("--answer-seconds", type=_above(0), default=0.3, help="seconds of a fast answer (0.3)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
