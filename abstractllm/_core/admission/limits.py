"""The limits of an LLM's requests: together, and of each caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["EVERYBODY", "UNLIMITED", "AdmissionLimits", "CallerLimits"]

EVERYBODY = "*"
"""The name under which the limits of callers stand who have none of their own."""


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """The limits of one caller; None for no limit."""

    max_running: int | None = None
    """Requests that are answered at a time; further ones wait, and others are taken before them."""
    max_queue: int | None = None
    """Requests that wait."""
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers; one minute's may be used at once."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The limits of an LLM's requests, which may change at any time."""

    max_queue: int
    """Requests that may wait."""
    max_queue_bytes: int
    """Bytes that the waiting requests may hold."""
    callers: Mapping[str, CallerLimits] = field(default_factory=dict)
    """The limits of callers by name, and of every other one under `*`."""

    def of(self, caller: str) -> CallerLimits:
        """Returns the limits of a caller.

        Args:
            caller: The caller's name, in front of which a server puts the role: `inference:backend` is `backend`.
        """
        if not self.callers:
            return UNLIMITED
        for name in (caller, caller.partition(":")[2], EVERYBODY):
            if name in self.callers:
                return self.callers[name]
        return UNLIMITED


UNLIMITED = CallerLimits()
