"""A resident model by number of callers: tokens a second, first token, decode step, greedy and sampled.

    .venv/bin/python -m benchmarks.engine [--callers 1 4 16 64] [--rounds 3]

The model is called through the Python library, in a process of its own, without gRPC. Everything is run in turn, in
every round, after a round that warms up, so that a change of the machine's speed meets all alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.results import Figure, Results, Target, figure, rounds, run, versions
from benchmarks.serving.model import build_model
from benchmarks.serving.systems import System, in_process
from benchmarks.serving.workload import Figures, Workload

KINDS = {"greedy": False, "sampled": True}


def measure(options: argparse.Namespace) -> Results:
    """Measures every number of callers, greedy and sampled, round by round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder)
        with in_process(folder, options.threads) as system:
            by_case = _rounds(system, options.callers, options.rounds)
    return Results(
        [*_rates(by_case), *_first_tokens(by_case), *_steps(by_case)],
        versions("abstractllm-grpc", "torch", "transformers"),
    )


Cases = dict[tuple[int, str], list[Figures]]


def _rounds(system: System, callers: list[int], count: int) -> Cases:
    by_case: Cases = {(callers_at_once, kind): [] for callers_at_once in callers for kind in KINDS}
    for number in rounds(count + 1, 2):
        for place, (callers_at_once, kind) in enumerate(by_case):
            # As many answers of a single caller as take a while.
            answers = 1 if number == 0 else max(1, 4 // callers_at_once)
            workload = Workload(
                callers_at_once,
                answers,
                new_tokens=8 if number == 0 else 64,
                sampled=KINDS[kind],
                salt=1000 * number + place,
            )
            figures = system.run(workload)
            if number:
                by_case[callers_at_once, kind].append(figures)
    return by_case


def _title(count: int, kind: str) -> str:
    return f"{count} caller{'s' * (count > 1)}, {kind}"


def _rates(by_case: Cases) -> list[Figure]:
    least, most = min(count for count, _ in by_case), max(count for count, _ in by_case)
    figures = []
    for (count, kind), runs in by_case.items():
        rates = [one.tokens_per_second for one in runs]
        greedy = [one.tokens_per_second for one in by_case[count, "greedy"]]
        alone = [one.tokens_per_second for one in by_case[least, "greedy"]]
        over, to = (greedy, "greedy") if kind == "sampled" else (alone, f"{least} caller{'s' * (least > 1)}")
        target = Target(least=0.85, of="ratio") if (count, kind) == (most, "sampled") else None
        figures.append(
            figure(
                "Tokens a second",
                _title(count, kind),
                "tokens/s",
                rates,
                over=None if (count, kind) == (least, "greedy") else over,
                to=to,
                target=target,
                series=kind,
                at=count,
            )
        )
    return figures


def _first_tokens(by_case: Cases) -> list[Figure]:
    return [
        figure(
            "First token", _title(count, kind), "ms", [one.first_token_ms or 0 for one in runs], series=kind, at=count
        )
        for (count, kind), runs in by_case.items()
    ]


def _steps(by_case: Cases) -> list[Figure]:
    figures = []
    for (count, kind), runs in by_case.items():
        if steps := [one.step_ms for one in runs if one.step_ms is not None]:
            figures.append(figure("Decode step", _title(count, kind), "ms", steps, series=kind, at=count))
    return figures


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16, 64], help="callers at a time (1 4 16 64)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run (3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the engine (1)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
