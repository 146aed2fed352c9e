"""The workloads that are run on each system, and the targets for the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.serving.workload import Figures, Workload

__all__ = ["ALONE", "ALONE_SAMPLED", "OURS", "PEER", "TARGETS", "Case", "Results", "Run", "Target", "cases"]

ALONE, ALONE_SAMPLED, OURS = "engine alone", "engine alone, its own sampling", "ours"
PEER = "transformers serve"


@dataclass(frozen=True)
class Run:
    """A workload on a system."""

    system: str
    workload: Workload

    @property
    def title(self) -> str:
        """The name of its line in the table."""
        if self.system == ALONE_SAMPLED:
            return self.system
        kind = [] if self.system == ALONE else ["streaming" if self.workload.streaming else "unary"]
        return ", ".join([self.system, *kind, "sampled" if self.workload.sampled else "greedy"])


@dataclass(frozen=True)
class Case:
    """Runs of workloads of one size, which are compared with each other."""

    title: str
    runs: tuple[Run, ...]
    every: int = 1
    """The number of repetitions in which it is run once."""


def cases(quick: bool) -> list[Case]:
    """Returns all cases or, if quick, the fewest and the most clients alone, and few long prompts without the peer."""
    if quick:
        return [_short(1), _short(64), _long(16, 1024, (ALONE, OURS))]
    long = [_long(clients, tokens, (ALONE, OURS, PEER)) for clients, tokens in ((16, 1024), (64, 256))]
    return [_short(1), _short(16), _short(64), *(replace(case, every=2) for case in long)]


def _short(clients: int) -> Case:
    greedy = Workload(clients, answers=4 if clients < 4 else 1)
    unary, sampled = replace(greedy, streaming=False), replace(greedy, sampled=True)
    # Those that targets compare are neighbours.
    runs = [Run(OURS, unary), Run(ALONE, greedy), Run(OURS, greedy), Run(OURS, sampled), Run(PEER, greedy)]
    runs += [Run(PEER, unary), Run(OURS, replace(unary, sampled=True)), Run(ALONE_SAMPLED, sampled)]
    return Case(f"{clients} x 16", tuple(runs))


def _long(clients: int, prompt_tokens: int, systems: Sequence[str]) -> Case:
    workload = Workload(clients, prompt_tokens=prompt_tokens)
    return Case(f"{clients} x {prompt_tokens:,}", tuple(Run(system, workload) for system in systems))


@dataclass
class Results:
    """The figures of every repetition, by case and run."""

    figures: dict[tuple[str, str], list[Figures]] = field(default_factory=dict)

    def add(self, case: Case, run: Run, figures: Figures) -> None:
        """Adds the figures of one run."""
        self.figures.setdefault((case.title, run.title), []).append(figures)

    def ratios(self, case: str, one: str, other: str, value: Callable[[Figures], float | None]) -> list[float]:
        """Returns a figure of one run over that of another, repetition by repetition."""
        pairs = zip(self.figures.get((case, one), ()), self.figures.get((case, other), ()), strict=False)
        return [mine / theirs for a, b in pairs if (mine := value(a)) and (theirs := value(b))]


@dataclass(frozen=True)
class Target:
    """A bound on the median of ratios."""

    title: str
    case: str
    one: str
    other: str
    value: Callable[[Figures], float | None]
    least: float | None = None
    most: float | None = None


def _rate(figures: Figures) -> float | None:
    return figures.tokens_per_second


def _first(figures: Figures) -> float | None:
    return figures.first_token_ms


def _step(figures: Figures) -> float | None:
    return figures.step_ms


_STREAM, _ALONE, _PEER = f"{OURS}, streaming, greedy", f"{ALONE}, greedy", f"{PEER}, streaming, greedy"

TARGETS = (
    Target("streaming, 64 clients / engine alone", "64 x 16", _STREAM, _ALONE, _rate, least=0.95),
    Target("unary, 64 clients / engine alone", "64 x 16", f"{OURS}, unary, greedy", _ALONE, _rate, least=0.97),
    Target("streaming, 64 clients / peer", "64 x 16", _STREAM, _PEER, _rate, least=1.5),
    Target("sampled / greedy, streaming, 64 clients", "64 x 16", f"{OURS}, streaming, sampled", _STREAM, _rate, 0.85),
    Target("first token, 64 clients / peer", "64 x 16", _STREAM, _PEER, _first, most=0.5),
    Target("decode step, 16 x 1,024 / engine alone", "16 x 1,024", _STREAM, _ALONE, _step, most=0.5),
    Target("decode step, 64 x 256 / engine alone", "64 x 256", _STREAM, _ALONE, _step, most=0.5),
)
