"""The time that a request has: its deadline, and the pauses before it is tried again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import TypeVar

from abstractllm._core.admission.retry_pauses import RetryPauses
from abstractllm.config import LLMConfig
from abstractllm.errors import AbstractLLMError, GenerationTimeoutError
from abstractllm.requests import GenerationRequest

__all__ = ["deadline_of", "deadline_on_the_clock", "pause", "within"]

T = TypeVar("T")

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0


async def pause(
    error: AbstractLLMError, tries: int, deadline: float | None, pauses: RetryPauses, request_size: int
) -> None:
    """Waits before a retry: exponentially with full jitter, at least as long as the provider asks.

    Raises:
        AbstractLLMError: The error itself, if the wait would be longer than half a minute or end after the deadline, or
            if too many requests wait so already. The caller may wait longer than that: the error says how long.
    """
    wait = random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (tries - 1)))
    wait = max(wait, error.retry_after or 0.0)
    is_too_late = deadline is not None and asyncio.get_running_loop().time() + wait >= deadline
    if is_too_late or wait > _LONGEST_DELAY:
        raise error
    with pauses.pause(request_size) as has_room:
        if not has_room:
            raise error
        await asyncio.sleep(wait)


def _budget(config: LLMConfig, request: GenerationRequest) -> float | None:
    """Returns the seconds in which the whole answer must be there; None for no limit."""
    return min((seconds for seconds in (request.timeout, config.timeout) if seconds is not None), default=None)


def deadline_of(config: LLMConfig, request: GenerationRequest) -> float | None:
    """Returns the time, on the event loop's clock, at which the whole answer must be there; None for no limit."""
    budget = _budget(config, request)
    return None if budget is None else asyncio.get_running_loop().time() + budget


def deadline_on_the_clock(config: LLMConfig, request: GenerationRequest) -> float | None:
    """Returns the same on the clock of `time.monotonic`; the fallback that made the request may have an earlier one."""
    budget = _budget(config, request)
    deadlines = (request.deadline, None if budget is None else time.monotonic() + budget)
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


async def within(deadline: float | None, result: Awaitable[T]) -> T:
    """Waits for a result until the deadline.

    Raises:
        GenerationTimeoutError: If the deadline passes first.
        TimeoutError: If the provider itself raises one.
    """
    if deadline is None:
        return await result
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout:
            return await result
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise GenerationTimeoutError("the request's deadline passed") from error
