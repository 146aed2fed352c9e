"""Tables, JSON and a plot of the results."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.serving.cases import ALONE, PEER, TARGETS, Case, Results
from benchmarks.serving.workload import SHORT, Figures

__all__ = ["figures_table", "machine", "save_json", "save_plot", "show", "targets_table"]

Table = list[list[str]]


def machine() -> dict[str, Any]:
    """Returns what the figures depend on: the machine, the versions of packages, the load."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "grpcio")},
        "load_average": os.getloadavg()[0],
    }


def figures_table(cases: Sequence[Case], results: Results) -> Table:
    """Returns a line for each run: medians over the repetitions, and medians of the repetitions' ratios."""
    lines = [["clients x prompt", "what", "tokens/s", "of alone", "of peer", "first token, ms", "step, ms", "CPU, ms"]]
    for case in cases:
        for run in case.runs:
            kind = "streaming" if run.workload.streaming else "unary"
            others = (f"{ALONE}, greedy", f"{PEER}, {kind}, greedy")
            ratios = [
                results.ratios(case.title, run.title, other, lambda figures: figures.tokens_per_second)
                for other in others
            ]
            fields = ("tokens_per_second", "first_token_ms", "step_ms", "cpu_ms_per_token")
            rate, first, step, cpu = (_median(case, run.title, results, field) for field in fields)
            lines.append(
                [
                    case.title,
                    run.title,
                    _number(rate, 0),
                    *(_number(statistics.median(values) if values else None, 2) for values in ratios),
                    _number(first, 0),
                    _number(step, 1),
                    _number(cpu, 2),
                ]
            )
    return lines


def targets_table(results: Results) -> Table:
    """Returns each target with its measured value: the median of the repetitions' ratios, and their range."""
    lines = [["figure", "target", "measured", "range", "met"]]
    for target in TARGETS:
        ratios = results.ratios(target.case, target.one, target.other, target.value)
        if ratios:
            ratio = statistics.median(ratios)
            span = f"{min(ratios):.2f} to {max(ratios):.2f}"
            met = "yes" if target.is_met_by(ratio) else "no"
            lines.append([target.title, target.bound, f"{ratio:.2f}", span, met])
    return lines


def show(table: Table, markdown: bool) -> str:
    """Returns a table as text, or in Markdown."""
    if markdown:
        head, *rest = [f"| {' | '.join(line)} |" for line in table]
        return "\n".join([head, f"|{'---|' * len(table[0])}", *rest])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def save_json(file: Path, about: dict[str, Any], results: Results) -> None:
    """Writes the figures of every repetition, and the targets."""
    runs = [
        {"case": case, "run": run, "repetitions": [dataclasses.asdict(repetition) for repetition in figures]}
        for (case, run), figures in results.figures.items()
    ]
    file.write_text(json.dumps({"machine": about, "targets": targets_table(results), "runs": runs}, indent=2) + "\n")


def save_plot(file: Path, cases: Sequence[Case], results: Results) -> None:
    """Draws tokens per second, and the time to the first token, by number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    short = [case for case in cases if case.runs[0].workload.prompt_tokens == SHORT]
    titles = [run.title for run in short[0].runs]
    for axes, field, label in (
        (left, "tokens_per_second", "tokens per second"),
        (right, "first_token_ms", "time to first token, median (ms)"),
    ):
        shown = [
            (title, values)
            for title in titles
            if any(values := [_median(case, title, results, field) or 0.0 for case in short])
        ]
        for place, (title, values) in enumerate(shown):
            width = 0.8 / len(shown)
            axes.bar([at + place * width for at in range(len(short))], values, width, label=title)
        axes.set_xticks([at + 0.4 for at in range(len(short))], [str(case.runs[0].workload.clients) for case in short])
        axes.set_xlabel("clients")
        axes.set_ylabel(label)
        axes.legend(fontsize="small")
    figure.savefig(file)
    pyplot.close(figure)


def _median(case: Case, run: str, results: Results, field: str) -> float | None:
    def value(figures: Figures) -> float | None:
        number: float | None = getattr(figures, field)
        return number

    return results.median(case.title, run, value)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _cpu_name() -> str:
    """Returns the processor's name where the system tells it, otherwise its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
