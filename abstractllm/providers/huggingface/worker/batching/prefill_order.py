"""The order in which prompts are taken into a batch: in turns by caller, weighted by tokens."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from abstractllm._core.admission.virtual_time import VirtualTime

__all__ = ["PrefillOrder"]

T = TypeVar("T")


class PrefillOrder(Generic[T]):
    """Orders prompts such that no caller's hold up another caller's.

    The order of requests at the provider's end is not enough: a caller who was alone may have sent many long prompts,
    which take many steps to read. A newcomer's prompt is read between their pieces.

    Args:
        caller_of: Returns the caller of a request.
        tokens_of: Returns the tokens of its prompt that are to be read.
    """

    def __init__(self, caller_of: Callable[[T], str], tokens_of: Callable[[T], int]) -> None:
        self._caller_of = caller_of
        self._tokens_of = tokens_of
        self._time = VirtualTime()
        self._callers: set[str] = set()
        """The callers of the last step, if several had prompts to read."""

    def sort(self, prompts: Sequence[T], decoding: Iterable[T]) -> list[T]:
        """Returns the prompts in the order in which they are to be read; those of one caller keep theirs.

        Args:
            prompts: The requests whose prompts are not read, or not to their end.
            decoding: The other requests of the batch, whose tokens count for their callers, too.
        """
        by_caller: dict[str, deque[T]] = {}
        for prompt in prompts:
            by_caller.setdefault(self._caller_of(prompt), deque()).append(prompt)
        if len(by_caller) < 2:
            self._set_callers(set())
            return list(prompts)
        self._set_callers({*by_caller, *map(self._caller_of, decoding)})
        ordered: list[T] = []
        turns = [(self._time[caller], number, caller) for number, caller in enumerate(by_caller)]
        heapq.heapify(turns)
        while turns:
            time, number, caller = heapq.heappop(turns)
            prompt = by_caller[caller].popleft()
            ordered.append(prompt)
            if by_caller[caller]:
                heapq.heappush(turns, (time + self._tokens_of(prompt), number, caller))
        return ordered

    def charge(self, request: T, tokens: int) -> None:
        """Charges the caller of a request for the tokens of it that are part of a step."""
        caller = self._caller_of(request)
        if caller in self._callers:
            self._time.serve(caller, tokens)

    def _set_callers(self, callers: set[str]) -> None:
        for caller in callers - self._callers:
            self._time.enter(caller)
        for caller in self._callers - callers:
            self._time.leave(caller)
        self._callers = callers
