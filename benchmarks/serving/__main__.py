"""Measures serving a local model: the batching engine alone, our server over gRPC, and the peer, in one run.

    .venv/bin/python -m benchmarks.serving                              # all of it, under ten minutes
    .venv/bin/python -m benchmarks.serving --quick                      # fewer repetitions, under two minutes

The peer is `transformers serve --continuous-batching`. Each system, and each client, is a process of its own. Only the
ratios within one run on a quiet machine say something; see `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.results import Results as Report
from benchmarks.results import positive, rounds, versions
from benchmarks.results import run as run_program
from benchmarks.serving.cases import ALONE, ALONE_SAMPLED, OURS, PEER, Case, Results, cases
from benchmarks.serving.model import build_model
from benchmarks.serving.report import figures
from benchmarks.serving.systems import System, engine_alone, install_peer, ours, peer
from benchmarks.serving.workload import SHORT


@contextmanager
def systems(folder: Path, threads: int) -> Iterator[dict[str, System]]:
    """Starts all systems one after another; yields them by name."""
    with ExitStack() as stack:
        yield {
            ALONE: stack.enter_context(engine_alone(folder, threads, sampled=False)),
            ALONE_SAMPLED: stack.enter_context(engine_alone(folder, threads, sampled=True)),
            OURS: stack.enter_context(ours(folder, threads)),
            PEER: stack.enter_context(peer(folder, threads, install_peer())),
        }


def measure(chosen: Sequence[Case], started: dict[str, System], repetitions: int) -> Results:
    """Runs everything in turn, `repetitions` times, after a short warm-up that does not count."""
    results = Results()
    for repetition in rounds(repetitions + 1, 2):
        for place, case in enumerate(chosen):
            if repetition % case.every:
                continue
            for run in case.runs:
                workload = dataclasses.replace(run.workload, salt=1000 * repetition + place)
                if repetition == 0:
                    workload = dataclasses.replace(workload, answers=1, prompt_tokens=SHORT, new_tokens=8)
                figures = started[run.system].run(workload)
                if repetition > 0:
                    results.add(case, run, figures)
                    rate = f"{figures.tokens_per_second:,.0f} tokens/s"
                    print(f"{repetition}/{repetitions}  {case.title}  {run.title}: {rate}", file=sys.stderr, flush=True)
    return results


def compare(options: argparse.Namespace) -> Report:
    """Runs everything."""
    chosen = cases(options.quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(folder)
        with systems(folder, options.threads) as started:
            results = measure(chosen, started, options.repetitions or (1 if options.quick else 5))
    return Report(figures(chosen, results), versions("abstractllm-grpc", "torch", "transformers", "grpcio", "aiohttp"))


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one repetition of fewer cases")
    parser.add_argument(
        "--repetitions", type=positive, help="how often everything is run (5), long prompts in every second one"
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of each engine (1)")
    return run_program(parser, compare)


if __name__ == "__main__":
    sys.exit(main())
