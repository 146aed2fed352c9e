"""The comparison of local serving: its cases, the choice of the settings that ours is compared with, its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.serving.cases import ALONE, OURS, PEER, Case, cases
from benchmarks.serving.comparison import Results
from benchmarks.serving.report import figures, notes
from benchmarks.serving.stock import ENGINES, PEERS
from benchmarks.serving.trials import Trial, run_trial
from benchmarks.serving.workload import Figures, Workload


class _System:
    """A system that gives the same figures again and again."""

    def __init__(self, *answers: Figures) -> None:
        self.workloads: list[Workload] = []
        self._answers = answers

    def run(self, workload: Workload) -> Figures:
        self.workloads.append(workload)
        return self._answers[(len(self.workloads) - 1) % len(self._answers)]


def _case(title: str) -> Case:
    return next(case for case in cases(quick=False) if case.title == title)


def _results(case: Case, alone: dict[str, float], values: Mapping[str, Sequence[float]]) -> Results:
    results = Results(trials={(case.title, ALONE): Trial(alone, {}), (case.title, PEER): Trial({"p": 1.0}, {"p": 9.0})})
    for title, each in values.items():
        for value in each:
            results.add(case, title, Figures(value, first_token_ms=value))
    return results


def test_every_size_is_served_in_waves() -> None:
    sizes = {(case.runs[0].workload.clients, case.runs[0].workload.prompt_tokens) for case in cases(quick=False)}
    assert sizes == {(clients, tokens) for clients in (1, 16, 64) for tokens in (16, 256, 1024)}
    for case in (*cases(quick=False), *cases(quick=True)):
        assert all(run.workload.answers >= (2 if case.title == "64x1024" else 4) for run in case.runs)
        assert {f"{OURS}, streaming, greedy", f"{OURS}, unary, greedy"} <= {run.title for run in case.runs}


def test_the_stock_engine_is_tried_with_several_blocks_and_page_sizes() -> None:
    assert {None, 16, 32} <= {settings.page for settings in ENGINES}
    assert len({settings.blocks for settings in ENGINES}) > 1
    assert any(settings.page is None and settings.step_tokens is None for settings in PEERS)
    assert len({settings.title for settings in ENGINES}) == len(ENGINES)


def test_settings_are_tried_in_turn_and_the_best_pass_counts() -> None:
    slow, fast = _System(Figures(10.0, 5.0), Figures(30.0, 7.0)), _System(Figures(40.0, 9.0))
    systems: dict[str, Any] = {"slow": slow, "fast": fast}
    trial = run_trial(systems, Workload(1))
    assert trial.rates == {"slow": 30.0, "fast": 40.0}
    assert trial.first_tokens == {"slow": 5.0, "fast": 9.0}
    assert [len(system.workloads) for system in (slow, fast)] == [2, 2]
    assert len({workload.salt for workload in slow.workloads}) == 2, "a prompt could be in a prefix cache"


def test_settings_that_are_close_to_the_fastest_are_measured_too() -> None:
    assert Trial({"a": 97.0, "b": 100.0, "c": 90.0}, {}).chosen() == ["b", "a"]
    assert Trial({"a": 100.0, "b": 60.0}, {"a": 20.0, "b": 10.0}).chosen() == ["a", "b"]
    assert Trial({"a": 100.0, "b": 97.0, "c": 98.0}, {}).chosen() == ["a", "c"]
    assert Trial({"a": 100.0, "b": 97.0}, {}).chosen(is_heavy=True) == ["a"]


def test_ours_is_compared_with_the_settings_that_were_the_fastest() -> None:
    case = _case("64x16")
    values = {
        f"{OURS}, streaming, greedy": (110.0, 90.0),
        f"{ALONE}, greedy, a": (100.0, 90.0),
        f"{ALONE}, greedy, b": (100.0, 120.0),
    }
    results = _results(case, {"a": 100.0, "b": 98.0}, values)
    table = f"Tokens a second, {case.words}"
    ours = next(one for one in figures([case], results) if one.table == table and one.name.startswith(OURS))
    assert ours.ratio is not None
    assert (ours.ratio.high, ours.ratio.low) == (1.1, 0.75)
    target = next(one for one in figures([case], results) if one.name == f"{case.words}: streaming / engine alone")
    assert (target.high, target.low) == (1.1, 0.75)
    (note,) = notes([case], results)
    assert "engine alone was the fastest with b" in note


def test_a_target_of_what_was_not_run_is_left_out() -> None:
    case = _case("64x16")
    results = _results(case, {"a": 1.0}, {f"{OURS}, streaming, greedy": (110.0,)})
    assert not [one for one in figures([case], results) if one.table == "Ratios with a target"]


def test_the_first_token_is_compared_with_the_peers_earliest() -> None:
    case = _case("1x16")
    values = {f"{OURS}, streaming, greedy": (6.0,), f"{PEER}, streaming, greedy, p": (12.0,)}
    results = _results(case, {"a": 1.0}, values)
    (target,) = [one for one in figures([case], results) if one.name.endswith("first token / peer")]
    assert target.value == 0.5
    assert target.target is not None
    assert target.target.most == 1.0
