"""The order in which models get memory, the models that are evicted for them, and that nothing waits for ever."""

from __future__ import annotations

import random
import threading
import time

import pytest

from abstractllm import LLMRegistry
from abstractllm._core import model_memory
from abstractllm._core.model_memory import ModelMemory, format_bytes
from abstractllm.errors import ConfigurationError, ModelLoadError
from abstractllm.testing import ScriptedProvider
from tests.waiting import wait_until

HANG = 30.0
"""Seconds after which a test gives up waiting."""


class Model:
    """A resident without a model: it is idle unless told otherwise, and leaves at once when it is asked to and can."""

    def __init__(self, shared: ModelMemory, name: str, size: int = 1, *, beside: Model | None = None) -> None:
        self.name, self.size, self.beside = name, size, beside
        self.shared = shared
        self.is_busy = self.is_leaving = self.is_stopping = self.is_loaded = False
        self.last_used = time.monotonic()
        self.loaded_at: float | None = None
        self.load_seconds = 0.0
        self.evictions: list[bool] = []
        self.waited = threading.Event()
        self._lock = threading.RLock()

    @property
    def is_idle(self) -> bool:
        return self.is_loaded and not self.is_busy and not self.is_leaving

    def measure(self) -> int:
        return self.size

    def request_eviction(self, drain: bool) -> None:
        with self._lock:
            self.evictions.append(drain)
            if drain or self.is_idle:
                self.is_leaving = True
                self.rest()

    def rest(self) -> None:
        with self._lock:
            if self.is_leaving and not self.is_busy:
                self.is_leaving = self.is_loaded = False
                self.loaded_at = None
                self.shared.release(self)
            else:
                self.shared.notify()

    def load(self, *, busy: bool = False) -> bool:
        """Acquires its memory, in the calling thread."""
        if not self.shared.acquire(self, self.waited.set):
            return False
        with self._lock:
            self.is_busy, self.is_loaded = busy, True
            self.loaded_at = self.last_used = time.monotonic()
        return True

    def finish(self) -> None:
        """Its requests are answered."""
        self.is_busy = False
        self.last_used = time.monotonic()
        self.rest()

    def stop(self) -> None:
        self.is_stopping = True
        self.shared.notify()


class Newcomer:
    """Loads a model in a thread of its own."""

    def __init__(self, model: Model, *, busy: bool = False) -> None:
        self.result: bool | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(model, busy), daemon=True)
        self._thread.start()

    def _run(self, model: Model, busy: bool) -> None:
        try:
            self.result = model.load(busy=busy)
        except BaseException as error:
            self.result = error

    def join(self) -> bool | BaseException | None:
        self._thread.join(HANG)
        assert not self._thread.is_alive(), "waited in vain"
        return self.result

    @property
    def is_waiting(self) -> bool:
        self._thread.join(0.05)
        return self._thread.is_alive()


def test_without_limits_everything_is_loaded_and_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ModelMemory()
    models = [Model(shared, str(index)) for index in range(50)]
    monkeypatch.setattr(Model, "measure", lambda self: pytest.fail("read a disk for nothing"))
    assert all(model.load(busy=True) for model in models)
    assert not any(model.evictions for model in models)


def test_least_recently_used_idle_model_makes_way() -> None:
    shared = ModelMemory(max_loaded=3)
    models = [Model(shared, name) for name in "abc"]
    for model in models:
        model.load()
    models[0].last_used = time.monotonic()
    assert Model(shared, "d").load()
    assert [model.is_loaded for model in models] == [True, False, True]


def test_no_more_leave_than_the_newcomer_needs() -> None:
    shared = ModelMemory(memory_budget=10)
    old, new, small = Model(shared, "old", 3), Model(shared, "new", 5), Model(shared, "small", 2)
    for model in (old, new, small):
        assert model.load()
    assert Model(shared, "newcomer", 3).load()
    assert (old.is_loaded, new.is_loaded, small.is_loaded) == (False, True, True)


def test_busy_model_is_waited_for_and_no_idle_one_leaves_in_vain() -> None:
    shared = ModelMemory(memory_budget=10)
    busy, idle = Model(shared, "busy", 7), Model(shared, "idle", 2)
    busy.load(busy=True)
    idle.load()
    big = Model(shared, "big", 10)
    newcomer = Newcomer(big)
    assert newcomer.is_waiting
    assert big.waited.is_set()
    assert idle.is_loaded
    busy.finish()
    assert newcomer.join() is True
    assert (busy.is_loaded, idle.is_loaded) == (False, False)


def test_a_small_newcomer_does_not_overtake_a_large_one() -> None:
    shared = ModelMemory(memory_budget=10)
    busy = Model(shared, "busy", 6)
    busy.load(busy=True)
    large = Newcomer(Model(shared, "large", 8), busy=True)
    assert large.is_waiting
    small = Newcomer(Model(shared, "small", 2))
    assert small.is_waiting
    busy.finish()
    assert large.join() is True
    assert small.join() is True


def test_newcomer_that_is_not_wanted_any_more_lets_the_next_one_in() -> None:
    shared = ModelMemory(max_loaded=1)
    busy, first = Model(shared, "busy"), Model(shared, "first")
    busy.load(busy=True)
    one = Newcomer(first)
    assert one.is_waiting
    two = Newcomer(Model(shared, "second"))
    assert two.is_waiting
    first.stop()
    assert one.join() is False
    busy.finish()
    assert two.join() is True


def test_model_in_the_way_is_drained_after_its_turn_but_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_memory, "_PATIENCE", 0.05)
    monkeypatch.setattr(model_memory, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 600.0)
    shared = ModelMemory(max_loaded=2)
    first, second = Model(shared, "first"), Model(shared, "second")
    for model in (first, second):
        model.load(busy=True)
    newcomer = Newcomer(Model(shared, "newcomer"))
    assert newcomer.is_waiting
    time.sleep(0.3)
    assert (first.evictions, second.evictions) == ([], [])

    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 0.0)
    wait_until(lambda: first.is_leaving)
    assert newcomer.is_waiting  # what it works on is finished first
    assert (first.evictions, second.evictions) == ([True], [])
    first.finish()
    assert newcomer.join() is True
    assert second.is_loaded


def test_a_turn_is_at_least_three_times_the_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_memory, "_PATIENCE", 0.0)
    monkeypatch.setattr(model_memory, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 0.0)
    shared = ModelMemory(max_loaded=1)
    slow = Model(shared, "slow")
    slow.load(busy=True)
    slow.load_seconds = 600.0
    newcomer = Newcomer(Model(shared, "newcomer"))
    time.sleep(0.2)
    assert newcomer.is_waiting
    assert slow.evictions == []
    slow.load_seconds = 0.0
    wait_until(lambda: slow.is_leaving)
    slow.finish()
    assert newcomer.join() is True


def test_model_that_could_never_fit_is_refused_with_both_numbers() -> None:
    shared = ModelMemory(memory_budget=4 * 2**30)
    resident = Model(shared, "resident", 2**30)
    resident.load()
    with pytest.raises(ModelLoadError, match=r"model giant needs 6 GiB.*memory_budget is 4 GiB") as failure:
        Model(shared, "giant", 6 * 2**30).load()
    assert (failure.value.field, failure.value.limit) == ("memory_budget", 4 * 2**30)
    assert failure.value.requested == 6 * 2**30
    assert resident.is_loaded


def test_what_a_model_really_takes_counts_from_then_on() -> None:
    shared = ModelMemory(memory_budget=10)
    idle, busy, grown = Model(shared, "idle", 2), Model(shared, "busy", 2), Model(shared, "grown", 2)
    idle.load()
    busy.load(busy=True)
    grown.load()
    assert shared.resize(grown, 7) is None
    assert (idle.is_loaded, busy.is_loaded, grown.is_loaded) == (False, True, True)
    error = shared.resize(grown, 11)
    assert error is not None
    assert "model grown needs 11 bytes" in error.message
    grown.request_eviction(drain=False)
    assert Model(shared, "next", 8).load()


def test_a_model_that_is_replaced_stays_until_the_new_one_is_loaded() -> None:
    shared = ModelMemory(max_loaded=2, memory_budget=10)
    old, other = Model(shared, "old", 4), Model(shared, "other", 4)
    old.load()
    other.load()
    old.last_used = 0.0
    new = Model(shared, "new", 6, beside=old)
    assert shared.obstacle(new, old) == ""
    assert new.load()
    assert (old.is_loaded, other.is_loaded) == (True, False)


def test_one_that_waits_in_vain_for_the_model_it_replaces_holds_up_nobody() -> None:
    shared = ModelMemory(memory_budget=10)
    old, other = Model(shared, "old", 2), Model(shared, "other", 7)
    old.load(busy=True)
    other.load(busy=True)
    newcomer = Newcomer(Model(shared, "new", 8, beside=old))
    assert newcomer.is_waiting
    other.finish()
    assert newcomer.join() is True
    shared.resize(old, 5)
    late = Newcomer(Model(shared, "late", 6, beside=old))
    result = late.join()
    assert isinstance(result, ModelLoadError)
    assert "model late does not fit beside model old" in result.message
    assert shared.obstacle(Model(shared, "x", 6), Model(shared, "y", 5)).startswith(
        "model x needs 6 bytes, model y has 5"
    )


@pytest.mark.parametrize(
    ("shared", "why"),
    [
        (ModelMemory(max_loaded=1), "max_loaded is 1"),
        (ModelMemory(memory_budget=10), "model new needs 7 bytes, model old has 4 bytes, memory_budget is 10 bytes"),
    ],
)
def test_what_stands_in_the_way_of_two_at_a_time_is_said(shared: ModelMemory, why: str) -> None:
    old, new = Model(shared, "old", 4), Model(shared, "new", 7)
    old.load()
    assert shared.obstacle(new, old) == why
    new.size = 11
    if shared.memory_budget:
        with pytest.raises(ModelLoadError, match="needs 11 bytes"):
            shared.obstacle(new, old)


@pytest.mark.parametrize("limits", [{"max_loaded": 0}, {"memory_budget": 0}, {"max_loaded": -1}])
def test_limits_begin_at_one(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="must be at least 1") as failure:
        LLMRegistry({"a": ScriptedProvider()}, **limits)  # type: ignore[arg-type]
    assert failure.value.field in limits


def test_bytes_are_shown_as_people_write_them() -> None:
    sizes = {5: "5 bytes", 2048: "2 KiB", 5 * 2**20 + 2**19: "5.5 MiB", 80 * 2**30: "80 GiB", 3 * 2**40: "3072 GiB"}
    assert {size: format_bytes(size) for size in sizes} == sizes


def test_many_models_that_never_rest_all_get_their_turns_and_no_limit_is_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each model always has requests: only draining lets another in."""
    monkeypatch.setattr(model_memory, "_PATIENCE", 0.0)
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 0.001)
    monkeypatch.setattr(model_memory, "_LOOK_AGAIN", 0.002)
    shared = ModelMemory(max_loaded=3, memory_budget=10)
    models = [Model(shared, f"m{index}", random.Random(index).randint(1, 6)) for index in range(8)]
    loaded: set[Model] = set()
    lock = threading.Lock()
    faults: list[str] = []
    done = threading.Event()
    turns = dict.fromkeys((model.name for model in models), 0)

    def live(model: Model) -> None:
        while not done.is_set():
            if not model.load(busy=True):
                return
            with lock:
                loaded.add(model)
                if len(loaded) > 3 or sum(one.size for one in loaded) > 10:
                    faults.append(str(sorted((one.name, one.size) for one in loaded)))
            turns[model.name] += 1
            while not (model.is_leaving or done.is_set()):
                time.sleep(0.001)
            with lock:
                loaded.discard(model)
            model.is_leaving = True
            model.finish()

    threads = [threading.Thread(target=live, args=(model,), daemon=True) for model in models]
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(faults) or min(turns.values()) >= 10)
    done.set()
    for model in models:
        model.stop()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()
    assert not faults
