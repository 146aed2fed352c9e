"""The load of a server, from the records of calls on a clock of the test's own."""

from __future__ import annotations

import pytest

from abstractllm.call_record import CallRecord
from abstractllm.errors import InvalidRequestError, OverloadedError
from abstractllm.registry import LLMRegistry
from abstractllm.statistics import EngineStatistics
from abstractllm.testing import ScriptedProvider
from abstractllm_server.telemetry.server_load import Load, ServerLoad

METHOD = "/x/Generate"


class FakeLLM(ScriptedProvider):
    """An LLM whose numbers are told."""

    waits = 0
    usage = 0.0
    limit = 10

    @property
    def queued(self) -> int:
        return self.waits

    @property
    def max_running(self) -> int:
        return self.limit

    @property
    def engine_statistics(self) -> EngineStatistics | None:
        return EngineStatistics(kv_cache_usage=self.usage)


class Bench:
    """A load, and the calls that make it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **llms: FakeLLM) -> None:
        self.llms = llms or {"a": FakeLLM()}
        self.now = 1000.0
        monkeypatch.setattr("abstractllm.call_record.time.monotonic", lambda: self.now)
        self.load = ServerLoad(LLMRegistry(dict(self.llms)), [METHOD], clock=lambda: self.now)

    def begin(self, llm: str = "a", method: str = METHOD) -> CallRecord:
        record = CallRecord(method=method, arrived_at=self.now)
        self.load.started(record, ())
        record.operation, record.llm, record.provider = "chat", llm, "scripted"
        return record

    def end(self, record: CallRecord, tokens: int | None = 10) -> None:
        record.output_tokens, record.ended_at = tokens, self.now
        self.load.ended(record)

    def run(self, seconds: float, every: float, takes: float, tokens: int = 10, llm: str = "a") -> Load:
        """Lets calls come at a steady rate, each of which takes as long; returns the load at the end."""
        until, upcoming, running = self.now + seconds, self.now, []
        while self.now < until:
            if upcoming <= self.now + 1e-9:
                running.append((self.begin(llm), self.now + takes))
                upcoming += every
            for record, ends in [one for one in running if one[1] <= self.now + 1e-9]:
                self.end(record, tokens)
                running.remove((record, ends))
            for record, _ in running:
                record.output_tokens = int(tokens * (self.now - record.arrived_at) / takes)
            self.now += every / 4
        return self.load.measure()


def weight(load: Load) -> float:
    """The weight that gRPC's weighted round robin gives a server with this load."""
    return load.answered / (load.utilization + load.failed / load.answered)


def test_calls_for_names_that_no_llm_has_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for number in range(100):
        record = bench.begin(f"nobody-{number}")
        record.provider, record.status = "", "CANCELLED"  # its caller left before the name was looked up
        bench.end(record, None)
    assert not bench.load._work


def test_at_the_usual_speed_utilization_is_the_share_of_places_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten tokens in half a second: 0.05 s for each. Four calls a second, so two at a time, of ten that may be.
    load = Bench(monkeypatch).run(120, every=0.25, takes=0.5)
    assert load.utilization == pytest.approx(0.2, rel=0.1)
    assert load.answered == pytest.approx(4, rel=0.05)
    assert load.failed == 0


@pytest.mark.parametrize("rate", [1, 4, 16])
def test_a_server_that_takes_five_times_as_long_weighs_a_twentyfifth(
    monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """Whatever the rate is, or the share of it that each gets."""
    fast = Bench(monkeypatch).run(120, every=1 / rate, takes=0.5)
    slow = Bench(monkeypatch).run(120, every=2 / rate, takes=2.5)
    assert weight(fast) / weight(slow) == pytest.approx(25, rel=0.25)


def test_answers_of_other_lengths_do_not_make_a_server_look_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Bench(monkeypatch).run(120, every=0.5, takes=0.5, tokens=10)
    long = Bench(monkeypatch).run(120, every=0.5, takes=2.0, tokens=40)
    assert weight(short) / weight(long) == pytest.approx(4, rel=0.2)  # the work that a call is; not its square


def test_a_frozen_server_loses_its_weight_though_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    before = weight(bench.run(60, every=0.25, takes=0.5))
    for _ in range(8):
        bench.begin()
    bench.now += 15
    after = bench.load.measure()
    assert after.utilization > 1
    assert weight(after) < before / 20


def test_the_first_answer_tells_a_rate_and_a_long_idle_time_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    assert bench.load.measure() == Load(running_limit=10)
    record = bench.begin()
    bench.now += 0.5
    bench.end(record)
    first = bench.load.measure()
    assert first.answered == pytest.approx(2, rel=0.1)
    assert first.utilization == pytest.approx(0.1, rel=0.1)
    bench.now += 300
    idle = bench.load.measure()
    assert idle.answered == 0
    assert idle.utilization == pytest.approx(0, abs=1e-6)


def test_a_call_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    record = bench.begin()
    bench.now += 1
    bench.end(record)
    once = bench.load.measure()
    bench.load.ended(record)
    assert bench.load.measure() == once


def test_a_server_that_refuses_quickly_does_not_look_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = Bench(monkeypatch).run(60, every=0.25, takes=0.5)
    for is_wholly_broken in (True, False):
        bench = Bench(monkeypatch)
        if not is_wholly_broken:
            bench.run(60, every=0.25, takes=0.5)
        for _ in range(2000):  # a hundred a second, as clients try again
            record = bench.begin()
            record.error = OverloadedError("no")
            bench.now += 0.01
            bench.end(record, tokens=None)
        load = bench.load.measure()
        assert load.failed > 50
        assert weight(load) < weight(healthy) / 20


def test_what_callers_do_wrong_is_not_held_against_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    before = bench.run(60, every=0.25, takes=0.5)
    for _ in range(100):
        record = bench.begin()
        record.error = InvalidRequestError("no")
        bench.end(record, tokens=None)
    assert bench.load.measure() == before


def test_an_answer_that_its_caller_leaves_counts_if_it_had_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for tokens in (None, 5):
        record = bench.begin()
        record.status = "CANCELLED"
        bench.now += 1
        bench.end(record, tokens)
    load = bench.load.measure()
    assert load.answered == pytest.approx(0.5, rel=0.1)
    assert load.failed == 0


def test_a_deadline_that_passed_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    record = bench.begin()
    record.status = "DEADLINE_EXCEEDED"
    bench.now += 1
    bench.end(record, None)
    assert bench.load.measure().failed > 0


def test_requests_that_wait_push_utilization_beyond_one(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FakeLLM()
    bench = Bench(monkeypatch, a=llm)
    assert bench.run(60, every=0.25, takes=0.5).utilization < 1
    llm.waits = 10
    load = bench.load.measure()
    assert load.utilization > 1
    assert load.waiting == 10


def test_a_full_cache_counts_where_places_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FakeLLM()
    bench = Bench(monkeypatch, a=llm)
    before = bench.run(60, every=0.25, takes=0.5)
    llm.usage = 0.9
    load = bench.load.measure()
    assert load.kv_cache_usage == 0.9
    assert load.utilization == pytest.approx(before.utilization * 4.5, rel=0.1)


def test_each_llm_adds_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = FakeLLM(), FakeLLM()
    slow.limit = 5
    alone = Bench(monkeypatch, a=FakeLLM()).run(60, every=0.25, takes=0.5)
    bench = Bench(monkeypatch, a=fast, b=slow)
    bench.run(60, every=0.25, takes=0.5)
    record = bench.begin("b")
    bench.now += 0.5
    bench.end(record, 10)
    both = bench.load.measure()
    assert both.utilization > alone.utilization * 0.9
    assert both.running_limit == 15


def test_an_llm_without_a_limit_counts_as_one_of_a_hundred_places(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FakeLLM()
    llm.limit = 0
    load = Bench(monkeypatch, a=llm).run(120, every=0.25, takes=0.5)
    assert load.utilization == pytest.approx(0.02, rel=0.1)
    assert load.running_limit == 0


def test_other_methods_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    record = bench.begin(method="/x/ListLlms")
    bench.now += 5
    bench.end(record)
    load = bench.load.measure()
    assert (load.answered, load.failed, load.utilization) == (0, 0, 0)
