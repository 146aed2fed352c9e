"""The figures of every round, and what is compared with what."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.serving.cases import ALONE, PEER, Case, Run, Target
from benchmarks.serving.trials import Trial
from benchmarks.serving.workload import Figures

__all__ = ["Results", "Value"]

Value = Callable[[Figures], float | None]


@dataclass
class Results:
    """The figures of every round, by case and title, and the trials by which settings were chosen."""

    figures: dict[tuple[str, str], list[Figures]] = field(default_factory=dict)
    trials: dict[tuple[str, str], Trial] = field(default_factory=dict)
    """The trials of the engine alone and of the peer, by case and system."""

    def titles(self, case: Case, run: Run) -> dict[str, str]:
        """Returns the titles of a run's lines, and the settings of each; one of ours has one line, without any."""
        trial = self.trials.get((case.title, run.system))
        if trial is None:
            return {run.title: ""}
        return {f"{run.title}, {name}": name for name in trial.chosen(is_heavy=case.is_heavy)}

    def add(self, case: Case, title: str, figures: Figures) -> None:
        """Adds the figures of one run."""
        self.figures.setdefault((case.title, title), []).append(figures)

    def values(self, case: Case, title: str, value: Value) -> list[float]:
        """Returns a figure of all runs of one title."""
        runs = self.figures.get((case.title, title), ())
        return [number for one in runs if (number := value(one)) is not None]

    def fastest(self, case: Case, system: str, value: Value, *, is_time: bool) -> str | None:
        """Returns the title of the settings of a system with the best median of a figure; None if it was not run."""
        medians = {
            title: statistics.median(values)
            for run in case.runs
            if run.system == system
            for title in self.titles(case, run)
            if (values := self.values(case, title, value))
        }
        best = min if is_time else max
        return best(medians, key=lambda title: medians[title], default=None)

    def ratios(self, case: Case, target: Target) -> list[float]:
        """Returns the ratios that a target bounds, round by round; none where one of both was not run."""
        other: str | None = target.other
        if other in (ALONE, PEER):
            other = self.fastest(case, other, target.value, is_time=target.most is not None)
        if other is None:
            return []
        pairs = zip(self.values(case, target.one, target.value), self.values(case, other, target.value), strict=False)
        return [one / another for one, another in pairs if another]
