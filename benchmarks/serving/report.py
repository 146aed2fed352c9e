"""The figures of the comparison, in the form of every benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.results import Figure, Target, figure
from benchmarks.serving.cases import ALONE, PEER, TARGETS, Case, Results, Run
from benchmarks.serving.workload import Figures

__all__ = ["figures"]

_TABLES = (
    ("Tokens a second", "tokens/s", "tokens_per_second"),
    ("First token", "ms", "first_token_ms"),
    ("Decode step", "ms", "step_ms"),
    ("CPU of the system for a token", "ms", "cpu_ms_per_token"),
)


def figures(cases: Sequence[Case], results: Results) -> list[Figure]:
    """Returns a figure for each run and quantity: over the peer's of the same manner, or else over the engine alone."""
    lines = []
    for title, unit, field in _TABLES:
        for case in cases:
            for run in case.runs:
                values = _values(results, case, run.title, _getter(field))
                if values:
                    to, over = _compared(results, case, run, _getter(field), len(values))
                    table = f"{title}, {_words(case)}"
                    lines.append(figure(table, run.title, unit, values, over=over, to=to))
    return [*lines, *_targets(results)]


def _compared(
    results: Results, case: Case, run: Run, value: Callable[[Figures], float | None], count: int
) -> tuple[str, list[float] | None]:
    kind = "streaming" if run.workload.streaming else "unary"
    if run.system not in (ALONE, PEER):
        for other, name in ((f"{PEER}, {kind}, greedy", PEER), (f"{ALONE}, greedy", "the engine alone")):
            if len(over := _values(results, case, other, value)) == count:
                return name, over
    return "", None


def _targets(results: Results) -> list[Figure]:
    """Returns the ratios that have a target."""
    lines = []
    for target in TARGETS:
        if ratios := results.ratios(target.case, target.one, target.other, target.value):
            bound = Target(target.least, target.most)
            lines.append(figure("Ratios with a target", target.title, "", ratios, target=bound))
    return lines


def _values(results: Results, case: Case, run: str, value: Callable[[Figures], float | None]) -> list[float]:
    runs = results.figures.get((case.title, run), ())
    return [number for one in runs if (number := value(one)) is not None]


def _getter(field: str) -> Callable[[Figures], float | None]:
    def value(one: Figures) -> float | None:
        number: float | None = getattr(one, field)
        return number

    return value


def _words(case: Case) -> str:
    workload = case.runs[0].workload
    clients = f"{workload.clients} client{'s' * (workload.clients > 1)}"
    return f"{clients}, prompts of {workload.prompt_tokens:,} tokens"
