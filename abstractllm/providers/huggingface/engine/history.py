"""The work of one engine over all of its processes: what a process counts begins again at zero with the next one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from abstractllm.providers.huggingface.protocol.messages import Counters

__all__ = ["History"]

_COUNTED = ("steps", "step_seconds", "prompt_tokens", "cached_tokens", "generated_tokens", "evictions")
"""The fields of `Counters` that only grow."""


@dataclass(slots=True)
class History:
    """The work of processes that have ended, and the starts of all of them."""

    loads: int = 0
    """Loads that succeeded."""
    failed_loads: int = 0
    load_seconds: float = 0.0
    """Seconds that the loads that succeeded took together."""
    restarts: Counter[str] = field(default_factory=Counter)
    """Ends that nobody asked for, by reason."""
    work: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_COUNTED, 0))
    """The counters of the processes that have ended, added up, by name."""

    def add_process(self, counters: Counters) -> None:
        """Adds the counters of a process that has ended."""
        for name in _COUNTED:
            self.work[name] += getattr(counters, name)

    def add(self, other: History) -> None:
        """Adds the history of another engine, which is forgotten."""
        self.loads += other.loads
        self.failed_loads += other.failed_loads
        self.load_seconds += other.load_seconds
        self.restarts.update(other.restarts)
        for name in _COUNTED:
            self.work[name] += other.work[name]
