"""Calls that cost memory and bring nothing: a bounded amount for each source of calls, and in all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["OpenCalls"]

Call = TypeVar("Call", bound=Hashable)


class OpenCalls(Generic[Call]):
    """Calls by source, the oldest first, each with a weight.

    Beyond a bound it is not the newcomer that has to go: calls that stay open for ever would then keep everybody else
    out. The oldest call of the source that has most goes, so that a source with few keeps them.

    Args:
        limit: The weight in all.
        limit_per_source: The weight of one source.
    """

    def __init__(self, limit: int, limit_per_source: int) -> None:
        self._limit = limit
        self._limit_per_source = limit_per_source
        self._calls: dict[str, dict[Call, int]] = {}
        self._weights: dict[str, int] = {}
        self.weight = 0
        """The weight in all."""

    def __iter__(self) -> Iterator[Call]:
        for calls in self._calls.values():
            yield from calls

    def add(self, source: str, call: Call, weight: int = 1) -> list[Call]:
        """Adds a call.

        Returns:
            The calls that have to go for it; they are removed already.
        """
        self._calls.setdefault(source, {})[call] = weight
        self._weights[source] = self._weights.get(source, 0) + weight
        self.weight += weight
        ousted = []
        while self._weights.get(source, 0) > self._limit_per_source:
            ousted.append(self._pop_oldest(source))
        while self.weight > self._limit:
            ousted.append(self._pop_oldest(max(self._weights, key=self._weights.__getitem__)))
        return ousted

    def remove(self, source: str, call: Call) -> None:
        """Removes a call, if it is there."""
        calls = self._calls.get(source)
        if calls is None or (weight := calls.pop(call, None)) is None:
            return
        self.weight -= weight
        if calls:
            self._weights[source] -= weight
        else:
            del self._calls[source], self._weights[source]

    def _pop_oldest(self, source: str) -> Call:
        call = next(iter(self._calls[source]))
        self.remove(source, call)
        return call
