"""The one table of what an error of one LLM means for the others, by reason."""

from __future__ import annotations

from enum import StrEnum

from abstractllm.errors import ErrorReason

__all__ = ["VERDICTS", "Verdict"]


class Verdict(StrEnum):
    """The treatment of an error that came before the first event."""

    NEXT = "next"
    """Asks the next LLM, and counts a failure of this one: it is this LLM that cannot answer now."""
    SKIP = "skip"
    """Asks the next LLM; nothing is wrong with this one, it only cannot honour this request."""
    STOP = "stop"
    """Gives the error to the caller: it is about the request."""


VERDICTS: dict[ErrorReason, Verdict] = {
    ErrorReason.INVALID_REQUEST: Verdict.STOP,
    ErrorReason.UNSUPPORTED_PARAMETER: Verdict.SKIP,
    ErrorReason.CONTEXT_LENGTH_EXCEEDED: Verdict.SKIP,
    ErrorReason.MESSAGE_TOO_LARGE: Verdict.STOP,
    ErrorReason.UNSUPPORTED_FEATURE: Verdict.SKIP,
    ErrorReason.UNKNOWN_LLM: Verdict.NEXT,
    ErrorReason.MODEL_NOT_FOUND: Verdict.NEXT,
    ErrorReason.UNAUTHENTICATED: Verdict.NEXT,
    ErrorReason.NOT_ALLOWED: Verdict.NEXT,
    ErrorReason.PROVIDER_CREDENTIALS: Verdict.NEXT,
    ErrorReason.NOT_CONFIGURED: Verdict.NEXT,
    ErrorReason.MODEL_LOAD_FAILED: Verdict.NEXT,
    ErrorReason.MODEL_IN_USE: Verdict.NEXT,
    # Another provider might answer; but a refused request is not to be offered around until somebody takes it.
    ErrorReason.CONTENT_BLOCKED: Verdict.STOP,
    ErrorReason.RATE_LIMITED: Verdict.NEXT,
    ErrorReason.OVERLOADED: Verdict.NEXT,
    ErrorReason.QUOTA_EXCEEDED: Verdict.NEXT,
    ErrorReason.PROVIDER_UNAVAILABLE: Verdict.NEXT,
    ErrorReason.PROVIDER_PROTOCOL: Verdict.NEXT,
    ErrorReason.INCOMPLETE_STREAM: Verdict.NEXT,
    ErrorReason.ENGINE_CRASHED: Verdict.NEXT,
    ErrorReason.SHUTTING_DOWN: Verdict.NEXT,
    # The LLM's own timeout: the request's ends the fallback itself.
    ErrorReason.TIMEOUT: Verdict.NEXT,
    ErrorReason.CANCELLED: Verdict.STOP,
    ErrorReason.STALE_CONFIG: Verdict.STOP,
    ErrorReason.INTERNAL: Verdict.NEXT,
    # The provider is well: it refused one request for reasons of its own.
    ErrorReason.UPSTREAM_REJECTED: Verdict.SKIP,
}
