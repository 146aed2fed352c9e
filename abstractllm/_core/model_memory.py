"""The memory of local models, where several LLMs share a limited number of places or bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from abstractllm._core.forks import forget_in_forked_child
from abstractllm.errors import ConfigurationError, ModelLoadError

__all__ = ["ModelMemory", "Resident", "format_bytes"]

_PATIENCE = 10.0
"""Seconds that a newcomer waits for the others to become idle before they are drained."""
_SHORTEST_TURN = 10.0
"""Seconds that a loaded model keeps its place while it has requests and others wait."""
_TURN_PER_LOADING = 3.0
"""A turn is at least this many times as long as the loading took, so that most of the time is spent answering."""
_LOOK_AGAIN = 0.5
"""Seconds between a waiting newcomer's looks for turns that have ended, since nothing reports their end."""


class Resident(Protocol):
    """One model, loaded or wanting to be. Its properties are read from any thread and must not take a lock."""

    @property
    def name(self) -> str:
        """The model's name in messages."""

    @property
    def beside(self) -> Resident | None:
        """The model that this one is to replace, and that therefore stays loaded until this one is."""

    @property
    def is_idle(self) -> bool:
        """True while it is loaded and has no request."""

    @property
    def is_leaving(self) -> bool:
        """True once it is to be unloaded as soon as it can be."""

    @property
    def is_stopping(self) -> bool:
        """True once it need not be loaded any more."""

    @property
    def last_used(self) -> float:
        """The time of its last request, on the monotonic clock."""

    @property
    def loaded_at(self) -> float | None:
        """The time at which it became ready, on the monotonic clock; None while it is loading."""

    @property
    def load_seconds(self) -> float:
        """Seconds that loading it took."""

    def measure(self) -> int:
        """Returns the bytes that it takes or, before it was ever loaded, is expected to take."""

    def request_eviction(self, drain: bool) -> None:
        """Has it unloaded if it is idle.

        Args:
            drain: Unload it even if it is not idle: after the requests that it works on.
        """


class ModelMemory:
    """The memory that models are loaded into.

    Newcomers are served in the order in which they come. For each the idle models are evicted, the least recently used
    first, until it fits. Where busy ones are in its way it waits; after ten seconds those that have had their turn,
    the longest loaded first, are drained: they work on no further request, are unloaded, and become newcomers
    themselves if requests wait for them. So no LLM can keep another out for ever. A turn is ten seconds, or three times
    as long as the loading took, if that is longer.

    Args:
        max_loaded: Models that may be loaded at a time; no limit if absent.
        memory_budget: Bytes that they may take together, weights and caches of keys and values, whichever device they
            are on; no limit if absent.

    Raises:
        ConfigurationError: If a limit is less than 1.
    """

    def __init__(self, max_loaded: int | None = None, memory_budget: int | None = None) -> None:
        _check_limits(max_loaded, memory_budget)
        self.max_loaded = max_loaded
        self.memory_budget = memory_budget
        self.forget()
        forget_in_forked_child(self)

    def set_limits(self, max_loaded: int | None, memory_budget: int | None) -> None:
        """Sets the limits from now on, for the arguments of the class; idle models beyond them are evicted.

        Busy models beyond them stay until they are idle.
        """
        with self._condition:
            self.max_loaded, self.memory_budget = max_loaded, memory_budget
            evictions = self._choose(0, 0, lambda other: other.is_idle)
            self._condition.notify_all()
        for resident in evictions:
            resident.request_eviction(drain=False)

    @contextlib.contextmanager
    def limits_of_both(self, max_loaded: int | None, memory_budget: int | None) -> Iterator[None]:
        """Lets what is within the present limits, or within others to come, be loaded meanwhile.

        If the body raises, the present limits are in force again; otherwise it has called `set_limits`.

        Raises:
            ConfigurationError: If a limit is less than 1.
        """
        _check_limits(max_loaded, memory_budget)
        present = (self.max_loaded, self.memory_budget)
        self.set_limits(_larger(present[0], max_loaded), _larger(present[1], memory_budget))
        try:
            yield
        except BaseException:
            self.set_limits(*present)
            raise

    def forget(self) -> None:
        """Forgets all models; called in a forked child, which has none of its parent's."""
        self._condition = threading.Condition()
        """Its lock is taken after a resident's own, never before."""
        self._sizes: dict[Resident, int] = {}
        """The loaded models, those that are being loaded or unloaded included, and the bytes they are counted with."""
        self._waiting: deque[Resident] = deque()

    def acquire(self, newcomer: Resident, on_wait: Callable[[], None]) -> bool:
        """Waits, in the calling thread, until there is memory for a model; a model that has it does not wait.

        Args:
            newcomer: The model.
            on_wait: Called if it has to wait.

        Returns:
            True if the model has its memory; False if it need not be loaded any more.

        Raises:
            ModelLoadError: If it would not fit even if it were the only one, or beside the one that must stay.
        """
        need = self._measure(newcomer)
        if (error := self._refusal(newcomer, need)) is not None:
            raise error
        began, is_waiting = time.monotonic(), False
        with self._condition:
            if newcomer in self._sizes:
                return not newcomer.is_stopping
            self._waiting.append(newcomer)
        try:
            while True:
                with self._condition:
                    if newcomer.is_stopping:
                        return False
                    evictions = self._plan(newcomer, need, began) if self._waiting[0] is newcomer else []
                    if evictions is None:
                        self._sizes[newcomer] = need
                        return True
                    if is_waiting and not evictions:
                        self._condition.wait(_LOOK_AGAIN)
                        continue
                if not is_waiting:
                    is_waiting = True
                    on_wait()
                for resident, drain in evictions:
                    resident.request_eviction(drain)
        finally:
            with self._condition:
                self._waiting.remove(newcomer)
                self._condition.notify_all()

    def release(self, resident: Resident) -> None:
        """Takes a model's memory back: others may have it."""
        with self._condition:
            self._sizes.pop(resident, None)
            self._condition.notify_all()

    def notify(self) -> None:
        """Wakes the newcomers that wait: a model has become idle, or need not be loaded any more."""
        with self._condition:
            self._condition.notify_all()

    def resize(self, resident: Resident, size: int) -> ModelLoadError | None:
        """Counts a loaded model with the bytes that it really takes; if that is too much, idle ones are evicted.

        Returns:
            The error that says why it cannot stay, if it exceeds the budget by itself.
        """
        with self._condition:
            if resident in self._sizes:
                self._sizes[resident] = size
            evictions = self._choose(0, 0, lambda other: other.is_idle and other is not resident)
        for other in evictions:
            other.request_eviction(drain=False)
        return self._refusal(resident, size)

    def obstacle(self, newcomer: Resident, other: Resident) -> str:
        """Says why a model cannot be loaded beside another one, whatever else is unloaded; empty if it can.

        Raises:
            ModelLoadError: If it would not fit even if it were the only one.
        """
        need = self._measure(newcomer)
        if (error := self._refusal(newcomer, need)) is not None:
            raise error
        if self.max_loaded == 1:
            return "max_loaded is 1"
        with self._condition:
            other_size = self._sizes.get(other)
        if other_size is None:
            other_size = self._measure(other)
        if self.memory_budget is None or need + other_size <= self.memory_budget:
            return ""
        return (
            f"model {newcomer.name} needs {format_bytes(need)}, model {other.name} has {format_bytes(other_size)}, "
            f"memory_budget is {format_bytes(self.memory_budget)}"
        )

    def _measure(self, newcomer: Resident) -> int:
        """Measures a model if there is a budget. It reads a disk: the lock must not be held."""
        return 0 if self.memory_budget is None else newcomer.measure()

    def _refusal(self, newcomer: Resident, need: int) -> ModelLoadError | None:
        if self.memory_budget is None or need <= self.memory_budget:
            return None
        return ModelLoadError(
            f"model {newcomer.name} needs {format_bytes(need)}, weights and cache of keys and values together; "
            f"memory_budget is {format_bytes(self.memory_budget)}",
            field="memory_budget",
            limit=self.memory_budget,
            requested=need,
        )

    # The lock is held in these.

    def _plan(self, newcomer: Resident, need: int, began: float) -> list[tuple[Resident, bool]] | None:
        """Returns the models to evict for a newcomer, and for each whether to drain it; None if it fits already."""
        if self._fits(1, need, self._sizes):
            return None
        beside = newcomer.beside
        if beside in self._sizes and not self._fits(1, need, [beside]):
            # It was expected to take less; no newcomer shall wait behind one that waits in vain.
            raise ModelLoadError(f"model {newcomer.name} does not fit beside model {beside.name}", field="model")
        now = time.monotonic()
        is_patient = now - began >= _PATIENCE

        def may_go(other: Resident) -> bool:
            return other is not newcomer.beside and (other.is_idle or (is_patient and now >= _end_of_turn(other)))

        return [(other, not other.is_idle) for other in self._choose(1, need, may_go)]

    def _choose(self, places: int, need: int, may_go: Callable[[Resident], bool]) -> list[Resident]:
        """Returns the fewest models whose eviction makes room, idle ones first.

        Empty if those that are leaving already make room, or if there cannot be room.
        """
        staying = [resident for resident in self._sizes if not resident.is_leaving]
        candidates = [resident for resident in staying if may_go(resident)]
        candidates.sort(
            key=lambda other: (not other.is_idle, other.last_used if other.is_idle else _end_of_turn(other))
        )
        for count in range(len(candidates) + 1):
            if self._fits(places, need, (resident for resident in staying if resident not in candidates[:count])):
                return candidates[:count]
        return []

    def _fits(self, places: int, need: int, others: Iterable[Resident]) -> bool:
        sizes = [self._sizes[other] for other in others]
        is_one_too_many = self.max_loaded is not None and len(sizes) + places > self.max_loaded
        is_too_large = self.memory_budget is not None and sum(sizes) + need > self.memory_budget
        return not is_one_too_many and not is_too_large


def _check_limits(max_loaded: int | None, memory_budget: int | None) -> None:
    for field, limit in (("max_loaded", max_loaded), ("memory_budget", memory_budget)):
        if limit is not None and limit < 1:
            raise ConfigurationError(f"{field}: must be at least 1, got {limit}", field=field, requested=limit)


def _larger(one: int | None, other: int | None) -> int | None:
    """Returns the larger one of two limits; None, which is none, is the largest."""
    return None if one is None or other is None else max(one, other)


def _end_of_turn(resident: Resident) -> float:
    """The time at which a model with requests may be drained for others."""
    if resident.loaded_at is None:
        return float("inf")
    return resident.loaded_at + max(_SHORTEST_TURN, _TURN_PER_LOADING * resident.load_seconds)


def format_bytes(count: int) -> str:
    """Writes a number of bytes as people do, such as `1.5 GiB`."""
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
