"""The workloads that are run on each system, and the targets for the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.serving.workload import SHORT, Figures, Workload

__all__ = ["ALONE", "OURS", "PEER", "Case", "Run", "Target", "cases", "first_token", "rate"]

ALONE, OURS, PEER = "engine alone", "ours", "transformers serve"
_ANSWERS, _HEAVIEST_ANSWERS = 4, 2
"""Answers of each client, one after another: the first ones begin together, the later ones as others end. Two of them
are all that there is time for with 64 prompts of 1,024 tokens."""
_HEAVY = 16_000
"""Prompt tokens of all clients together from which on transformers' own attention takes minutes for a run."""
_TRIAL_CLIENTS, _TRIAL_TOKENS = 16, 16
"""The most clients of a trial of heavy prompts, and the new tokens of every trial."""


@dataclass(frozen=True)
class Run:
    """A workload on a system."""

    system: str
    workload: Workload

    @property
    def title(self) -> str:
        """The name of its line in the table; of the engine alone and of the peer the settings are added."""
        kind = [] if self.system == ALONE else ["streaming" if self.workload.streaming else "unary"]
        return ", ".join([self.system, *kind, "sampled" if self.workload.sampled else "greedy"])


@dataclass(frozen=True)
class Case:
    """Runs of workloads of one size, which are compared with each other."""

    runs: tuple[Run, ...]
    trial: Workload
    """The workload by which the settings are chosen of the engine alone, and of the peer."""
    is_heavy: bool = False
    """True if a run takes minutes: there is one round then."""

    @property
    def title(self) -> str:
        """Its name on the command line."""
        return f"{self.runs[0].workload.clients}x{self.runs[0].workload.prompt_tokens}"

    @property
    def words(self) -> str:
        """Its name in tables."""
        workload = self.runs[0].workload
        clients = f"{workload.clients} client{'s' * (workload.clients > 1)}"
        return f"{clients}, prompts of {workload.prompt_tokens:,} tokens"

    @property
    def systems(self) -> list[str]:
        """The systems that are compared."""
        return list(dict.fromkeys(run.system for run in self.runs))

    @property
    def targets(self) -> list[Target]:
        """The bounds that its figures should keep."""
        streaming, unary, sampled = (f"{OURS}, {kind}" for kind in _KINDS)
        clients = self.runs[0].workload.clients
        targets = [
            Target("streaming / engine alone", streaming, ALONE, rate, least=0.95),
            Target("unary / engine alone", unary, ALONE, rate, least=0.97),
            Target("sampled / greedy, streaming", sampled, streaming, rate, least=0.9),
        ]
        if clients == 1:
            targets.append(Target("first token / peer", streaming, PEER, first_token, most=1.0))
        elif clients == 64:
            targets.append(Target("streaming / peer", streaming, PEER, rate, least=1.5))
            targets.append(Target("first token / peer", streaming, PEER, first_token, most=0.5))
        return targets


_KINDS = ("streaming, greedy", "unary, greedy", "streaming, sampled")


@dataclass(frozen=True)
class Target:
    """A bound on the median of ratios; it counts where both were run."""

    title: str
    one: str
    """The title of a run."""
    other: str
    """The title of another one; or `ALONE` or `PEER`, for the settings of it that were the fastest."""
    value: Callable[[Figures], float | None]
    least: float | None = None
    most: float | None = None


def rate(figures: Figures) -> float | None:
    """Returns the tokens per second."""
    return figures.tokens_per_second


def first_token(figures: Figures) -> float | None:
    """Returns the milliseconds until the first token."""
    return figures.first_token_ms


def cases(quick: bool) -> list[Case]:
    """Returns all cases or, if quick, the fewest and the most clients with short prompts, and long prompts."""
    if quick:
        return [_case(1, SHORT), _case(64, SHORT), _case(16, 256, new_tokens=32)]
    light = [_case(clients, tokens) for tokens in (SHORT, 256) for clients in (1, 16)]
    light += [_case(64, SHORT), _case(1, 1024)]
    heavy = [_case(16, 1024, new_tokens=32), _case(64, 256, new_tokens=32)]
    heavy.append(_case(64, 1024, new_tokens=16, answers=_HEAVIEST_ANSWERS))
    return [*light, *heavy]


def _case(clients: int, prompt_tokens: int, new_tokens: int = 64, answers: int = _ANSWERS) -> Case:
    greedy = Workload(clients, answers, prompt_tokens, new_tokens)
    unary, sampled = replace(greedy, streaming=False), replace(greedy, sampled=True)
    # Those that targets compare are neighbours.
    runs = [Run(OURS, unary), Run(ALONE, greedy), Run(OURS, greedy)]
    if prompt_tokens == SHORT:
        runs.append(Run(OURS, sampled))
    if prompt_tokens == SHORT or clients == 1:
        runs.append(Run(PEER, greedy))
    is_heavy = clients * prompt_tokens >= _HEAVY
    trial = replace(greedy, answers=1, new_tokens=_TRIAL_TOKENS)
    if is_heavy:
        trial = replace(trial, clients=min(clients, _TRIAL_CLIENTS))
    return Case(tuple(runs), trial, is_heavy)
