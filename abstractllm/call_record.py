"""The record of one call, filled on its way: the one source of its log line, its metrics, its span and its counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abstractllm.errors import AbstractLLMError
from abstractllm.types import Attempt, Usage

__all__ = ["CallRecord", "UpstreamCall"]


@dataclass(slots=True, eq=False)
class UpstreamCall:
    """One call to a hosted LLM's API: a request has one for each try. Times are those of `CallRecord`."""

    llm: str
    provider: str
    model: str
    address: str = ""
    """The host of the API, where the configuration names it."""
    port: int | None = None
    began_at: float = field(default_factory=time.monotonic)
    """The time at which the call was made: it no longer waits for its turn."""
    began_at_ns: int = field(default_factory=time.time_ns)
    """The same on the calendar's clock, in nanoseconds since 1970."""
    first_event_at: float | None = None
    """The time at which the first piece of the answer was there."""
    ended_at: float | None = None
    usage: Usage | None = None
    """The tokens as the API reports them; None if it does not, or the call ended before that."""
    error_reason: str = ""
    """The reason of the error that it ended with: TIMEOUT if the request's time was over before its end, CANCELLED if
    it was given up otherwise."""
    trace: Any = None
    """The call's part of a trace; only the code of traces knows what it is."""


@dataclass(slots=True, eq=False)
class CallRecord:
    """The facts of one call, each noted by the part that knows it.

    A server makes one when a call's headers arrive; where there is no server, the LLM makes it with the request. It is
    the one value of a request that changes, and it belongs to one call: only the call's own code writes to it. Times
    are seconds on the clock of `time.monotonic`, and durations are seconds; None stands for what is not known, or has
    not happened.
    """

    operation: str = ""
    """`chat` for an answer, `count_tokens` for a count; empty for a call that asks no LLM."""
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
    changes: Mapping[str, str] = field(default_factory=dict)
    """The choices of a call that only an administrator may make, by name: a model, the keys to change; no content."""
    provider: str = ""
    model: str = ""
    """The model that answers, as the LLM's configuration names it."""
    replica: str = ""
    """The replica that answers, of an LLM that has several."""
    arrived_at: float = field(default_factory=time.monotonic)
    """The time at which the call began."""
    arrived_at_ns: int = field(default_factory=time.time_ns)
    """The same on the calendar's clock, in nanoseconds since 1970."""
    tried_at: float | None = None
    """The time at which the latest try at answering began, which first waits for its turn."""
    checking: float | None = None
    """The duration of waiting for what the request's check must know, such as the abilities of a model that is loaded
    first."""
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
    """Tokens of the answer, counted while it comes, so that an answer that ends early has its count: of a hosted LLM,
    which tells the count at the end alone, the pieces until then, each of which has at least one token."""
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    upstream: list[UpstreamCall] = field(default_factory=list)
    """The calls to hosted LLMs, oldest first."""
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

    @property
    def waited(self) -> float | None:
        """The duration of all waiting before the answer."""
        durations = [duration for duration in (self.checking, self.queued) if duration is not None]
        return sum(durations) if durations else None

    @property
    def error_type(self) -> str:
        """The reason of the error that the call ended with, else its status; empty if all went well."""
        if self.status in ("", "OK"):
            return ""
        return self.status if self.error is None else str(self.error.reason)

    def begin_try(self) -> None:
        """Forgets what an earlier try has left behind that came to nothing: its counts and its times."""
        self.input_tokens = self.output_tokens = self.cached_input_tokens = self.reasoning_tokens = None
        self.queued = self.prefill = self.decode = self.first_token_at = None
        self.tried_at = time.monotonic()

    def facts(self) -> dict[str, Any]:
        """Returns what is known of the request and its answer, by name: ids, tokens, seconds, the end.

        Content is none of it, nor is the message of an error, which may repeat what the caller or the provider wrote.
        """
        values = {
            "request_id": self.request_id or (self.error and self.error.request_id),
            "llm": self.llm,
            "provider": self.provider,
            "model": self.model,
            "replica": self.replica,
            "finish_reason": self.finish_reason,
            "error": str(self.error.reason) if self.error else "",
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "attempts": len(self.attempts) if len(self.attempts) > 1 else None,
            "queued": _rounded(self.waited),
            "prefill": _rounded(self.prefill),
            "decode": _rounded(self.decode),
            "first_token": _rounded(self.time_to_first_token),
            "seconds": _rounded(self.seconds),
            "labels": dict(self.labels),
        }
        return {name: value for name, value in values.items() if value not in (None, "", {})}

    def note_usage(self, usage: Usage) -> None:
        """Notes the counts of a whole answer; what is not known leaves what was counted before."""
        for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
            count = getattr(usage, name)
            if count is not None:
                setattr(self, name, count)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
