"""The faults of a provider, each with the one documented error that it ends in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        reason: The reason of the error that it ends in.
        partial: Whether a part of the answer has come before.
        retry_after: The wait that the provider asks for.
    """

    reason: str
    partial: bool = False
    retry_after: float | None = None


FAULTS = {
    "reset before the answer": Fault("PROVIDER_UNAVAILABLE"),
    "reset mid-token": Fault("INCOMPLETE_STREAM", partial=True),
    "hang before the answer": Fault("TIMEOUT"),
    "hang mid-answer": Fault("TIMEOUT", partial=True),
    "early end": Fault("INCOMPLETE_STREAM", partial=True),
    "error mid-answer": Fault("PROVIDER_UNAVAILABLE", partial=True),
    "status 401": Fault("PROVIDER_CREDENTIALS"),
    "status 429": Fault("RATE_LIMITED"),
    "status 429 with Retry-After": Fault("RATE_LIMITED", retry_after=7),
    "quota": Fault("QUOTA_EXCEEDED"),
    "status 500": Fault("PROVIDER_UNAVAILABLE"),
    "status 529": Fault("OVERLOADED"),
    "bad JSON": Fault("PROVIDER_PROTOCOL"),
    "bad UTF-8": Fault("PROVIDER_PROTOCOL"),
    "HTML with 200": Fault("PROVIDER_PROTOCOL"),
    "empty choices": Fault("PROVIDER_PROTOCOL"),
    "unknown finish reason": Fault("INCOMPLETE_STREAM", partial=True),
    "overlong line": Fault("PROVIDER_PROTOCOL"),
    "gzip bomb": Fault("PROVIDER_PROTOCOL"),
}

OWN_FAULTS = ("engine killed mid-answer",)
"""Faults of the local engine, which has no upstream."""
