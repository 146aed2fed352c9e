"""The meaning of Ray's own errors: each becomes one of the library's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from abstractllm.errors import (
    AbstractLLMError,
    EngineCrashedError,
    GenerationTimeoutError,
    InternalError,
    OverloadedError,
    ProviderUnavailableError,
    cause_chain,
)

__all__ = ["RETRY_AFTER", "UnansweredError", "missing", "translate", "translating"]

RETRY_AFTER = 1.0
"""Seconds after which another replica has taken a dead one's place in what servers know of."""
_CRASHES = (
    "ActorDiedError",
    "ActorUnavailableError",
    "NodeDiedError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "RayActorError",
    "WorkerCrashedError",
)
_CANCELLATIONS = ("RequestCancelledError", "TaskCancelledError")
"""Nobody here has asked for it: the replica, or its application, is being ended."""


class UnansweredError(ProviderUnavailableError):
    """Ray's own processes do not answer: the cluster is gone, or cannot be reached any more."""


def translate(error: BaseException) -> AbstractLLMError:
    """Returns what an error of Ray, or of a replica's own code, means for a caller."""
    if isinstance(error, AbstractLLMError):
        return error
    # By name: what is not installed cannot be imported, and errors of a replica are of classes that are made for them.
    names = {kind.__name__ for link in cause_chain(error) for kind in type(link).__mro__}
    words = " ".join(str(error).split())[:300]
    if "BackPressureError" in names:
        full = OverloadedError(
            "max_waiting: every replica has max_running requests, and as many wait as may", retry_after=RETRY_AFTER
        )
        full.is_turned_away = True
        return full
    if names.intersection(_CRASHES):
        return EngineCrashedError(
            f"the replica that answered has ended; another takes its place ({words})", retry_after=RETRY_AFTER
        )
    if names.intersection(_CANCELLATIONS):
        return ProviderUnavailableError("the replica ends, and has given the request up", retry_after=RETRY_AFTER)
    if "RayTaskError" in names:
        fault = InternalError(f"a replica's code failed: {words}")
        fault.__cause__ = error
        return fault
    if isinstance(error, TimeoutError) or "GetTimeoutError" in names:
        return GenerationTimeoutError(f"Ray has not answered in time: {words}")
    return ProviderUnavailableError(f"Ray Serve: {type(error).__name__}: {words}", retry_after=RETRY_AFTER)


@contextmanager
def translating() -> Iterator[None]:
    """Raises what `translate` makes of an error."""
    try:
        yield
    except AbstractLLMError:
        raise
    except Exception as error:
        raise translate(error) from error


def missing(application: str, words: str) -> AbstractLLMError:
    """Returns the error of an application that Ray Serve does not have, or cannot run."""
    return ProviderUnavailableError(f"Ray Serve has no application {application!r} that runs: {words}", retry_after=5.0)
