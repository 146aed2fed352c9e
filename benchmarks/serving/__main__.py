"""Measures serving a local model: the batching engine alone, our server over gRPC, and the peer, in one run.

    .venv/bin/python -m benchmarks.serving                              # all of it, about a quarter of an hour
    .venv/bin/python -m benchmarks.serving --quick                      # fewer cases and rounds, under three minutes
    .venv/bin/python -m benchmarks.serving --cases 64x16,1x16           # some cases: clients x prompt tokens

The peer is `transformers serve --continuous-batching`. Each system, and each client, is a process of its own. The
engine alone and the peer run with several settings, and ours is compared with the fastest ones of each case. Only the
ratios within one run on a quiet machine say something; see `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.results import Results as Report
from benchmarks.results import positive, rounds, versions
from benchmarks.results import run as run_program
from benchmarks.serving.cases import ALONE, OURS, PEER, Case, cases
from benchmarks.serving.comparison import Results
from benchmarks.serving.model import build_model
from benchmarks.serving.report import figures, notes
from benchmarks.serving.stock import ENGINES, PEERS
from benchmarks.serving.systems import System, engine_alone, install_peer, ours, peer
from benchmarks.serving.trials import Trial, run_trial
from benchmarks.serving.workload import SHORT, Workload

_WARM_UP = Workload(clients=4, prompt_tokens=SHORT, new_tokens=8)
_QUICK = 2
"""The number of settings of the engine alone that a quick run tries."""

Systems = Mapping[str, Mapping[str, System]]
"""The systems by name and, of the engine alone and of the peer, by the title of their settings."""


@contextmanager
def systems(folder: Path, threads: int, quick: bool) -> Iterator[Systems]:
    """Starts all systems one after another."""
    engines, peers = (ENGINES[:_QUICK], PEERS[:1]) if quick else (ENGINES, PEERS)
    packages = install_peer()
    with ExitStack() as stack:
        yield {
            ALONE: {one.title: stack.enter_context(engine_alone(folder, threads, one)) for one in engines},
            OURS: {"": stack.enter_context(ours(folder, threads))},
            PEER: {one.title: stack.enter_context(peer(folder, threads, packages, one)) for one in peers},
        }


def measure(chosen: Sequence[Case], started: Systems, repetitions: int) -> Results:
    """Chooses the settings of each case, then runs everything in turn, `repetitions` times."""
    results = Results()
    for repetition in rounds(repetitions + 1, 2):
        if repetition == 0:
            _choose(chosen, started, results)
            continue
        for place, case in enumerate(chosen):
            if case.is_heavy and repetition > 1:
                continue
            for run in case.runs:
                workload = dataclasses.replace(run.workload, salt=1000 * repetition + place)
                for title, settings in results.titles(case, run).items():
                    measured = started[run.system][settings].run(workload)
                    results.add(case, title, measured)
                    rate = f"{measured.tokens_per_second:,.0f} tokens/s"
                    print(f"{repetition}/{repetitions}  {case.title}  {title}: {rate}", file=sys.stderr, flush=True)
    return results


def _choose(chosen: Sequence[Case], started: Systems, results: Results) -> None:
    """Warms up, and tries the settings of the engine alone and of the peer in each case."""
    for kinds in started.values():
        for system in kinds.values():
            system.run(_WARM_UP)
    known: dict[tuple[str, Workload], Trial] = {}
    for case in chosen:
        for name in case.systems:
            if name == OURS:
                continue
            trial = known.get((name, case.trial)) or run_trial(started[name], case.trial)
            known[name, case.trial] = results.trials[case.title, name] = trial
            print(f"trial  {case.title}  {name}: {trial}", file=sys.stderr, flush=True)


def compare(options: argparse.Namespace) -> Report:
    """Runs everything."""
    chosen = cases(options.quick)
    if options.cases:
        known = {case.title: case for case in cases(quick=False)}
        if unknown := [title for title in options.cases if title not in known]:
            sys.exit(f"--cases: {', '.join(unknown)}: the cases are {', '.join(known)}")
        chosen = [known[title] for title in options.cases]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder)
        with systems(folder, options.threads, options.quick) as started:
            results = measure(chosen, started, options.repetitions or (1 if options.quick else 2))
    packages = versions("abstractllm-grpc", "torch", "transformers", "grpcio", "aiohttp")
    return Report(figures(chosen, results), packages, notes(chosen, results))


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of fewer cases, with fewer settings to compare")
    parser.add_argument(
        "--cases", type=lambda text: text.split(","), help="clients x prompt tokens, such as 64x16,1x16 (all)"
    )
    parser.add_argument(
        "--repetitions", type=positive, help="how often everything is run (2); the longest cases only once"
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of each engine (1)")
    return run_program(parser, compare)


if __name__ == "__main__":
    sys.exit(main())
