"""How far the download, the loading and the unloading of a model is."""

from __future__ import annotations

from dataclasses import dataclass

from abstractllm.enums import LlmState

__all__ = ["LoadProgress", "PullProgress", "UnloadProgress"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the loading of a model is."""

    state: LlmState
    """READY in the last report."""
    phase: str = ""
    """`waiting` (for room), `starting`, `tokenizer`, `weights`, `preparing`; empty when not loading."""
    fraction: float | None = None
    """Of this phase, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a download is."""

    file: str
    """The file that this report is about; empty where it is about the whole alone."""
    file_bytes_done: int
    file_bytes_total: int | None
    bytes_done: int
    bytes_total: int | None
    done: bool
    """True in the last report: the model is whole."""


@dataclass(frozen=True, slots=True)
class UnloadProgress:
    """How far the unloading of a model is."""

    state: LlmState
    """UNLOADED in the last report."""
    running: int
    """Requests that still run."""
