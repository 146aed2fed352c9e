"""The settings of engines."""

from __future__ import annotations

from dataclasses import dataclass, field

from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.protocol.watchdog import Patience

__all__ = ["EngineLimits", "EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of an engine, which may change while it has a process."""

    admission: AdmissionLimits
    """The limits of what waits, and of callers."""
    keep_alive: float | None
    """Seconds without a request after which the process is ended; None for never."""
    patience: Patience = field(default_factory=Patience)
    """The bounds on what its process may be waited for."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of an engine."""

    name: str
    """The model's name in messages."""
    load_settings: Load
    """The model that its process loads, and how; equal ones mean the same engine."""
    limits: EngineLimits
