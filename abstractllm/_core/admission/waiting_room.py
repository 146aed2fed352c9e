"""The requests of an LLM that wait for what their checks need to know, before they wait for a turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from abstractllm._core.admission.admission import Admission
from abstractllm._core.admission.gate import Passage
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm.requests import GenerationRequest

__all__ = ["WaitingRoom"]

R = TypeVar("R")


class WaitingRoom:
    """Bounds the requests that wait for the same thing, and their bytes, as if they waited for their turn.

    One is let in whatever the limits: where nobody may wait, what all need to know would never become known.

    Args:
        limits: The limits of what waits, and of callers.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._lock = threading.Lock()
        self._admission: Admission[Passage] = Admission(limits)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._admission.waiting

    @property
    def waiting_bytes(self) -> int:
        """Bytes that these hold."""
        return self._admission.waiting_bytes

    def configure(self, limits: AdmissionLimits) -> None:
        """Changes the limits, from now on."""
        self._admission.limits = limits

    async def during(self, request: GenerationRequest, work: Coroutine[Any, Any, R]) -> R:
        """Keeps a request here as long as a piece of work takes, and notes that time in its record.

        Returns:
            The result of the work.

        Raises:
            OverloadedError: If too much waits already, or the request has to make place for another one meanwhile.
            RateLimitedError: If its caller has too many waiting.
        """
        try:
            passage = Passage.of(request)
            with self._lock:
                is_first = not self._admission.waiting
                displaced = self._admission.add(passage, goes_at_once=is_first, is_serving=False)
        except BaseException:
            work.close()
            raise
        for other, error in displaced:
            other.refuse(error)
        began = time.monotonic()
        task, refusal = asyncio.ensure_future(work), asyncio.ensure_future(passage.wait())
        try:
            await asyncio.wait((task, refusal), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await refusal
            return await task
        finally:
            request.record.checking = time.monotonic() - began
            with self._lock:
                self._admission.discard(passage)
            for future in (task, refusal):
                future.cancel()
            await asyncio.gather(task, refusal, return_exceptions=True)
