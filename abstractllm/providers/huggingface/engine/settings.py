"""The settings of engines."""

from __future__ import annotations

from dataclasses import dataclass

from abstractllm.providers.huggingface.protocol.messages import Load

__all__ = ["EngineLimits", "EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of an engine, which may change while it has a process."""

    max_queue: int
    """Requests that may wait."""
    max_queue_bytes: int
    """Bytes that the waiting requests may hold."""
    keep_alive: float | None
    """Seconds without a request after which the process is ended; None for never."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of an engine."""

    name: str
    """The model's name in messages."""
    load_settings: Load
    """The model that its process loads, and how; equal ones mean the same engine."""
    limits: EngineLimits
