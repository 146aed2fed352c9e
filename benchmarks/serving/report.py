"""The figures of the comparison, in the form of every benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Figure, Target, figure
from benchmarks.serving.cases import ALONE, OURS, PEER, Case, Run
from benchmarks.serving.comparison import Results, Value
from benchmarks.serving.workload import Figures

__all__ = ["figures", "notes"]

_TABLES = (
    ("Tokens a second", "tokens/s", "tokens_per_second", ALONE),
    ("First token", "ms", "first_token_ms", PEER),
    ("CPU of the system for a token", "ms", "cpu_ms_per_token", ALONE),
)
"""The tables: title, unit, field of `Figures`, and the system whose fastest settings ours is compared with."""
_NAMES = {ALONE: "the engine alone", PEER: "transformers serve"}


def figures(cases: Sequence[Case], results: Results) -> list[Figure]:
    """Returns a figure for each run and quantity, and the ratios that have a target."""
    lines = []
    for title, unit, name, other in _TABLES:
        for case in cases:
            for run in case.runs:
                for line in results.titles(case, run):
                    if values := results.values(case, line, _getter(name)):
                        to, over = _compared(results, case, run, name, other, len(values))
                        lines.append(figure(f"{title}, {case.words}", line, unit, values, over=over, to=to))
    return [*lines, *_targets(cases, results)]


def notes(cases: Sequence[Case], results: Results) -> list[str]:
    """Returns a sentence for each case and system with settings: those that were the fastest, and the trial."""
    lines = []
    for case in cases:
        for run in case.runs:
            trial = results.trials.get((case.title, run.system))
            best = results.fastest(case, run.system, _getter("tokens_per_second"), is_time=False)
            if trial and best:
                fastest = results.titles(case, run)[best]
                lines.append(f"{case.words}: {run.system} was the fastest with {fastest} (in a trial: {trial}).")
    return lines


def _compared(
    results: Results, case: Case, run: Run, field: str, other: str, count: int
) -> tuple[str, list[float] | None]:
    if run.system != OURS:
        return "", None
    is_time = field != "tokens_per_second"
    title = results.fastest(case, other, _getter(field), is_time=is_time)
    over = results.values(case, title, _getter(field)) if title else []
    return (_NAMES[other], over) if len(over) == count else ("", None)


def _targets(cases: Sequence[Case], results: Results) -> list[Figure]:
    lines = []
    for case in cases:
        for target in case.targets:
            if ratios := results.ratios(case, target):
                bound = Target(target.least, target.most)
                lines.append(figure("Ratios with a target", f"{case.words}: {target.title}", "", ratios, target=bound))
    return lines


def _getter(field: str) -> Value:
    def value(one: Figures) -> float | None:
        number: float | None = getattr(one, field)
        return number

    return value
