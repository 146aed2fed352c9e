"""The numbers of an LLM that runs on this machine, for those who watch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from abstractllm.enums import LlmState

__all__ = ["EngineStatistics", "ReplicaStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """The work and the memory of an LLM's engines.

    What is counted never falls while the LLM lives, however often an engine process ends and is started again.
    """

    weights_bytes: int = 0
    """Bytes of the weights that are loaded."""
    kv_cache_bytes: int = 0
    """Bytes of the caches of keys and values."""
    kv_cache_usage: float = 0.0
    """Part of these caches that requests hold, from 0 to 1."""
    batch_size: int = 0
    """Requests in the latest step."""
    steps: int = 0
    """Steps so far."""
    step_seconds: float = 0.0
    """Seconds that the steps took together."""
    prompt_tokens: int = 0
    """Tokens of the prompts that have begun."""
    cached_prompt_tokens: int = 0
    """Of these, those whose keys and values an earlier request had left in the cache."""
    generated_tokens: int = 0
    evictions: int = 0
    """Requests that lost their place in the cache to others, and were continued later."""
    loads: int = 0
    """Loads that succeeded."""
    failed_loads: int = 0
    load_seconds: float = 0.0
    """Seconds that the loads that succeeded took together."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Ends of processes that nobody asked for, by reason: `crashed`, `frozen`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatistics:
    """One replica of an LLM that runs in several processes, on this machine or on others."""

    name: str
    state: LlmState
    running: int = 0
    """Requests that it answers now, whichever server they came from."""
    queued: int = 0
    """Requests that wait in it for their turn."""
    queued_bytes: int = 0
    """Bytes that these hold."""
    is_responsive: bool = True
    engine: EngineStatistics | None = None
    """The work of its engines since it was started; None where it has none, as that of a hosted LLM."""
