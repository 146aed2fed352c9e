"""Trials of the settings of transformers' continuous batching, of which each case is compared with the fastest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.serving.cases import first_token, rate
from benchmarks.serving.systems import System
from benchmarks.serving.workload import Figures, Workload

__all__ = ["Trial", "run_trial"]

_PASSES = 2
"""Trials of each setting, in turn."""
_CLOSE, _MOST_CHOSEN = 0.95, 2
"""The part of the best one's tokens per second from which on another one is measured in the rounds, too."""
_SALT = 900_000


@dataclass(frozen=True)
class Trial:
    """The figures of a short workload with each of some settings: of each the best of its passes."""

    rates: Mapping[str, float]
    """Tokens per second, by the title of the settings."""
    first_tokens: Mapping[str, float]
    """Milliseconds until the first token, where the system streams."""

    def chosen(self, *, is_heavy: bool = False) -> list[str]:
        """Returns the settings to measure: the fastest, and one that is close or has an earlier first token.

        Args:
            is_heavy: Whether a run takes minutes, so that the fastest alone is measured.
        """
        ordered = sorted(self.rates, key=lambda title: -self.rates[title])
        chosen = ordered[:1]
        if self.first_tokens:
            chosen.append(min(self.first_tokens, key=lambda title: self.first_tokens[title]))
        chosen += [title for title in ordered if self.rates[title] >= _CLOSE * self.rates[ordered[0]]]
        return list(dict.fromkeys(chosen))[: 1 if is_heavy else _MOST_CHOSEN]

    def __str__(self) -> str:
        """Returns the tokens per second of all settings, the fastest first."""
        ordered = sorted(self.rates.items(), key=lambda item: -item[1])
        return "; ".join(f"{title}: {value:,.0f} tokens/s" for title, value in ordered)


def run_trial(systems: Mapping[str, System], workload: Workload) -> Trial:
    """Tries each system in turn.

    Args:
        systems: One system for each of the settings, by their titles.
        workload: The workload.
    """
    figures: dict[str, list[Figures]] = {title: [] for title in systems}
    for number in range(_PASSES):
        for title, system in systems.items():
            figures[title].append(system.run(dataclasses.replace(workload, salt=_SALT + number)))
    rates = {title: max(rate(one) or 0.0 for one in each) for title, each in figures.items()}
    firsts = {
        title: min(values)
        for title, each in figures.items()
        if (values := [value for one in each if (value := first_token(one)) is not None])
    }
    return Trial(rates, firsts)
