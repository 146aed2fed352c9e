"""The record of one call, filled on its way: the one source of its log line, its metrics, its span and its counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abstractllm.errors import AbstractLLMError
from abstractllm.types import Attempt, Usage

__all__ = ["CallRecord"]


@dataclass(slots=True, eq=False)
class CallRecord:
    """The facts of one call, each noted by the part that knows it.

    A server makes one when a call's headers arrive; where there is no server, the LLM makes it with the request. It is
    the one value of a request that changes, and it belongs to one call: only the call's own code writes to it. Times
    are seconds on the clock of `time.monotonic`, and durations are seconds; None stands for what is not known, or has
    not happened.
    """

    method: str = ""
    """The path of the gRPC method, `/package.Service/Method`; empty where there is no server."""
    peer: str = ""
    """The caller's connection."""
    caller: str = ""
    """The caller's name; callers take turns."""
    role: str = ""
    """The caller's role; empty where nobody is asked for credentials."""
    request_id: str = ""
    """The caller's id of the request, else the LLM's."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The caller's labels."""
    llm: str = ""
    """The name of the LLM that the caller named, or that was meant."""
    provider: str = ""
    model: str = ""
    """The model that answers, as the LLM's configuration names it."""
    arrived_at: float = field(default_factory=time.monotonic)
    """The time at which the call began."""
    arrived_at_ns: int = field(default_factory=time.time_ns)
    """The same on the calendar's clock, in nanoseconds since 1970."""
    queued: float | None = None
    """The duration of waiting for a turn."""
    prefill: float | None = None
    """The duration from the turn's begin to the first token, of a local model."""
    decode: float | None = None
    """The duration from the first token to the last, of a local model."""
    first_token_at: float | None = None
    """The time at which the first piece of the answer was there."""
    ended_at: float | None = None
    """The time at which the call ended."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    """Tokens of the answer, counted while it comes, so that an answer that ends early has its count."""
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    attempts: tuple[Attempt, ...] = ()
    """The tries at answering, oldest first."""
    finish_reason: str = ""
    """The reason of the answer's end; empty if it did not come to its end."""
    error: AbstractLLMError | None = None
    """The error that the call ended with."""
    status: str = ""
    """The name of the gRPC status that the call ended with; empty where there is no server."""
    request_bytes: int = 0
    response_bytes: int = 0
    trace: Any = None
    """The trace that the call belongs to; only the code of traces knows what it is."""

    @property
    def seconds(self) -> float:
        """The duration of the call, until now if it has not ended."""
        return (time.monotonic() if self.ended_at is None else self.ended_at) - self.arrived_at

    @property
    def time_to_first_token(self) -> float | None:
        """The duration from the call's begin to the first piece of the answer."""
        return None if self.first_token_at is None else self.first_token_at - self.arrived_at

    def note_usage(self, usage: Usage) -> None:
        """Notes the counts of a whole answer; what is not known leaves what was counted before."""
        for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
            count = getattr(usage, name)
            if count is not None:
                setattr(self, name, count)
