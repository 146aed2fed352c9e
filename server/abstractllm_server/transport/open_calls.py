"""Calls that cost memory and bring nothing: a bounded amount for each connection, and in all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["OpenCalls"]

Call = TypeVar("Call", bound=Hashable)


class OpenCalls(Generic[Call]):
    """Calls by connection, the oldest first, each with a weight.

    Beyond a bound it is not the newcomer that has to go: calls that stay open for ever would then keep everybody else
    out. The oldest call of the connection that has most goes, so that a connection with few keeps them.

    Args:
        limit: The weight in all.
        limit_per_connection: The weight of one connection.
    """

    def __init__(self, limit: int, limit_per_connection: int) -> None:
        self._limit = limit
        self._limit_per_connection = limit_per_connection
        self._calls: dict[str, dict[Call, int]] = {}
        self._weights: dict[str, int] = {}
        self.weight = 0
        """The weight in all."""

    def __iter__(self) -> Iterator[Call]:
        for calls in self._calls.values():
            yield from calls

    def add(self, connection: str, call: Call, weight: int = 1) -> list[Call]:
        """Adds a call.

        Returns:
            The calls that have to go for it; they are removed already.
        """
        self._calls.setdefault(connection, {})[call] = weight
        self._weights[connection] = self._weights.get(connection, 0) + weight
        self.weight += weight
        ousted = []
        while self._weights.get(connection, 0) > self._limit_per_connection:
            ousted.append(self._pop_oldest(connection))
        while self.weight > self._limit:
            ousted.append(self._pop_oldest(max(self._weights, key=self._weights.__getitem__)))
        return ousted

    def remove(self, connection: str, call: Call) -> None:
        """Removes a call, if it is there."""
        calls = self._calls.get(connection)
        if calls is None or (weight := calls.pop(call, None)) is None:
            return
        self.weight -= weight
        if calls:
            self._weights[connection] -= weight
        else:
            del self._calls[connection], self._weights[connection]

    def _pop_oldest(self, connection: str) -> Call:
        call = next(iter(self._calls[connection]))
        self.remove(connection, call)
        return call
