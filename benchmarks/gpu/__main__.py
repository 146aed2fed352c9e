"""Decodes with large random models on a GPU, against what the memory's bandwidth allows.

    python -m benchmarks.gpu --json build/gpu.json
    python -m benchmarks.gpu --device cpu --shape tiny --requests 1,4 --prompt 32 --new 32

The default shape is that of Llama 3 8B, in bfloat16. A decode step must read every weight, and the keys and values of
every request, once: the bandwidth, measured by copying, over those bytes is the roofline. Everything runs in a process
of its own, as the engine does in the server; the memory that the device still holds afterwards is lost by unloading.
Figures are written after every run, so that an abort keeps what was measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.engine import measure, memory_in_use
from benchmarks.gpu.report import show
from benchmarks.gpu.scenarios import SHAPES, VARIANTS, Scenario, Variant, scenarios
from benchmarks.gpu.serving import measure_server


def main() -> None:
    """Measures, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--requests", default="1,16,64,256", help="requests at a time")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--softcap", choices=("none", *SHAPES), default="gemma-2-2b", help="a model with capped scores")
    parser.add_argument("--served", choices=("none", *SHAPES), default="llama-1b", help="the model of the server")
    parser.add_argument(
        "--compare", action=argparse.BooleanOptionalAction, default=True, help="try the engine without each part, too"
    )
    parser.add_argument("--seconds", type=float, default=900, help="begin nothing after this time")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu tries the benchmark itself")
    figures = _Figures(arguments)
    counts = _counts(arguments)
    runs = scenarios(arguments.shape, counts, arguments.prompt, arguments.new)
    numbers = {1, 64 if 64 in counts else max(counts)}
    compared = [
        run for run in runs if run.requests in numbers and run.prompt == arguments.prompt and run.name == "greedy"
    ]
    default, *others = VARIANTS.values()
    figures.take_all("engine", partial(_engine, arguments, arguments.shape, default, runs))
    for variant in others if arguments.compare else ():
        figures.take_all("engine", partial(_engine, arguments, arguments.shape, variant, compared))
    if arguments.softcap != "none":
        capped = [Scenario(min(64, max(counts)), arguments.prompt, 32, profiled=True)]
        figures.take_all("engine", partial(_engine, arguments, arguments.softcap, default, capped))
    if arguments.served != "none":
        short = scenarios("llama-1b", [count for count in counts if count >= 64] or counts, 128, arguments.new)
        figures.take_all("engine", partial(_engine, arguments, arguments.served, default, short))
        clients = [run.requests for run in short]
        served = arguments.served, arguments.device, clients, 128, arguments.new
        figures.take_all("server", partial(measure_server, *served))
    figures.add("memory", {"bytes_before": figures.before, "bytes_after": memory_in_use(arguments.device)})
    show(figures.taken)
    sys.exit(1 if figures.taken["failures"] else 0)


class _Figures:
    """Collects figures, and writes them into a file whenever there are new ones."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._file: Path | None = arguments.json
        self._began, self._seconds = time.monotonic(), arguments.seconds
        self.before = memory_in_use(arguments.device)
        """The bytes taken on the device before anything was measured."""
        is_cuda = arguments.device == "cuda"
        self.taken: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if is_cuda else "CPU",
            "torch": torch.__version__,
            "engine": [],
            "server": [],
            "failures": [],
        }
        """All figures so far."""

    def take_all(self, part: str, measuring: Callable[[], Iterator[dict[str, Any]]]) -> None:
        """Takes the figures of a measurement, unless the time is up; a failure of one does not end the others."""
        if time.monotonic() - self._began > self._seconds:
            self.add("failures", f"{part}: no time was left")
            return
        try:
            for figures in measuring():
                print(json.dumps(figures), flush=True)
                self.add(part, figures)
                if figures.get("captures"):
                    self.add("failures", f"{part}: {figures['captures']} graphs were captured while serving")
        except SystemExit as error:
            print(error, flush=True)
            self.add("failures", f"{part}: {error}")

    def add(self, part: str, figures: Any) -> None:
        """Adds figures, and writes the file."""
        if part == "memory":
            self.taken[part] = figures
        else:
            self.taken[part].append(figures)
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self.taken, indent=2))


def _counts(arguments: argparse.Namespace) -> list[int]:
    return [int(count) for count in arguments.requests.split(",")]


def _engine(
    arguments: argparse.Namespace, shape: str, variant: Variant, runs: list[Scenario]
) -> Iterator[dict[str, Any]]:
    """Yields the figures of the engine, which runs in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    slots = max(2, *_counts(arguments))  # one alone is answered without a batch
    process = context.Process(target=measure, args=(shape, arguments.device, variant, runs, slots, sender))
    process.start()
    sender.close()
    try:
        while True:
            yield receiver.recv()
    except EOFError:
        pass
    finally:
        process.join()
    if process.exitcode:
        raise SystemExit(f"the process that measured {shape} ended with {process.exitcode}")


if __name__ == "__main__":
    main()
