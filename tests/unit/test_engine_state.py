"""The state of an engine: which transitions there are, what each one reports, and whom it wakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from abstractllm.errors import ModelLoadError
from abstractllm.providers.huggingface.engine.state import EngineState, Lifecycle, Tenure
from abstractllm.providers.huggingface.protocol.messages import Loaded
from abstractllm.types import LlmState

DESCRIPTION = Loaded(
    device="cpu",
    memory_bytes=0,
    dtype="float32",
    quantization="none",
    context_window=1000,
    max_characters=None,
    system_prompt=True,
    note="answers one at a time",
)
FAILURE = ModelLoadError("no such file")

TRANSITIONS: dict[str, Callable[[EngineState], None]] = {
    "start": lambda state: state.start(),
    "ready": lambda state: state.ready(DESCRIPTION, load_seconds=2.0),
    "drain": lambda state: state.drain(),
    "crash": lambda state: state.crash("the engine ended by signal 9"),
    "stop": lambda state: state.stop(),
    "end": lambda state: state.end(),
    "fail": lambda state: state.fail(FAILURE),
    "dismiss_failure": lambda state: state.dismiss_failure(),
}
PATHS = {
    Lifecycle.UNLOADED: "",
    Lifecycle.LOADING: "start",
    Lifecycle.READY: "start ready",
    Lifecycle.DRAINING: "start ready drain",
    Lifecycle.STOPPING: "start ready stop",
    Lifecycle.FAILED: "start fail",
}
"""The transitions that lead to each stage."""
ALLOWED = {
    Lifecycle.UNLOADED: {"start": Lifecycle.LOADING},
    Lifecycle.LOADING: {
        "ready": Lifecycle.READY,
        "stop": Lifecycle.STOPPING,
        "fail": Lifecycle.FAILED,
        "crash": Lifecycle.LOADING,
    },
    Lifecycle.READY: {"drain": Lifecycle.DRAINING, "stop": Lifecycle.STOPPING, "crash": Lifecycle.LOADING},
    Lifecycle.DRAINING: {"stop": Lifecycle.STOPPING, "crash": Lifecycle.LOADING},
    Lifecycle.STOPPING: {"end": Lifecycle.UNLOADED},
    Lifecycle.FAILED: {"start": Lifecycle.LOADING, "dismiss_failure": Lifecycle.UNLOADED},
}


def state_after(path: str, on_change: Callable[[], None] = lambda: None) -> EngineState:
    state = EngineState(on_change)
    for name in path.split():
        TRANSITIONS[name](state)
    return state


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("stage", Lifecycle)
def test_each_stage_allows_its_transitions_and_no_other(stage: Lifecycle, name: str) -> None:
    state = state_after(PATHS[stage])
    assert state.lifecycle is stage
    if name in ALLOWED[stage]:
        TRANSITIONS[name](state)
        assert state.lifecycle is ALLOWED[stage][name]
    else:
        with pytest.raises(AssertionError):
            TRANSITIONS[name](state)
        assert state.lifecycle is stage


@pytest.mark.parametrize(
    ("path", "report"),
    [
        ("", (LlmState.UNLOADED, "", "")),
        ("start", (LlmState.LOADING, "", "starting")),
        ("start ready", (LlmState.READY, "answers one at a time", "")),
        ("start ready drain", (LlmState.READY, "answers one at a time", "")),
        ("start ready drain stop", (LlmState.READY, "answers one at a time", "")),
        ("start stop", (LlmState.LOADING, "", "starting")),
        ("start stop end", (LlmState.UNLOADED, "", "")),
        ("start ready crash", (LlmState.LOADING, "the engine ended by signal 9", "starting")),
        ("start fail", (LlmState.FAILED, "no such file", "")),
        ("start fail start", (LlmState.LOADING, "", "starting")),
        ("start fail dismiss_failure", (LlmState.UNLOADED, "", "")),
    ],
)
def test_report_follows_the_lifecycle(path: str, report: tuple[LlmState, str, str]) -> None:
    state = state_after(path)
    assert (state.report.state, state.report.reason, state.report.phase) == report
    assert (state.report.failure is FAILURE) == (report[0] is LlmState.FAILED)
    assert state.is_down == (report[0] in (LlmState.UNLOADED, LlmState.FAILED))


def test_report_of_a_load_tells_why_it_waits_how_far_it_is_and_why_it_was_begun_again() -> None:
    state = state_after("start")
    state.wait_for_memory("waits for another one")
    assert (state.report.reason, state.report.phase) == ("waits for another one", "waiting")
    state.launch()
    assert (state.report.reason, state.report.phase) == ("", "starting")
    state.progress("weights", 0.5)
    assert (state.report.phase, state.report.fraction) == ("weights", 0.5)
    TRANSITIONS["ready"](state)
    TRANSITIONS["crash"](state)
    state.launch()
    state.progress("weights", 0.25)
    assert state.report.reason == "the engine ended by signal 9"


def test_model_is_known_until_its_process_has_ended() -> None:
    state = state_after("start ready drain stop")
    assert state.model is not None
    assert (state.model.description, state.model.load_seconds, state.loads) == (DESCRIPTION, 2.0, 1)
    assert state.last_used == state.model.loaded_at
    state.end()
    assert state.model is None
    assert state_after("start ready crash").model is None


def test_crashes_are_counted_until_the_process_is_stopped() -> None:
    state = state_after("start ready crash ready crash")
    assert (state.crashes, state.loads) == (2, 2)
    state.stop()
    state.end()
    assert (state.crashes, state.loads) == (0, 2)


def test_retired_engine_is_reinstated_unless_it_is_closed() -> None:
    state = state_after("start ready")
    assert not state.is_leaving
    state.retire()
    assert state.is_leaving
    assert state.reinstate()
    assert not state.is_leaving
    state.retire()
    state.close()
    state.retire()
    assert not state.reinstate()
    assert state.tenure is Tenure.CLOSED


@pytest.mark.parametrize(("path", "is_leaving"), [("start ready drain", True), ("start stop", True), ("start", False)])
def test_process_that_is_drained_or_stopped_is_leaving(path: str, is_leaving: bool) -> None:
    assert state_after(path).is_leaving == is_leaving


def test_listener_is_told_of_other_states_and_reasons_alone_and_may_fail() -> None:
    states: list[LlmState] = []

    def listen() -> None:
        states.append(state.report.state)
        raise RuntimeError("the listener is broken")

    state = EngineState(listen)
    for name in ("start", "ready", "drain", "stop", "end"):
        TRANSITIONS[name](state)
        if name == "start":
            state.progress("weights", 0.5)
    assert states == [LlmState.LOADING, LlmState.READY, LlmState.UNLOADED]


def test_watchers_are_woken_once_and_those_who_left_are_forgotten() -> None:
    state = state_after("start")
    watcher, left, cancelled = state.watch(), state.watch(), state.watch()
    state.unwatch(left)
    cancelled.cancel()
    state.progress("weights", None)
    assert watcher.done()
    assert not left.done()
    state.unwatch(watcher)  # it is not watching any more
    assert not state.watch().done()


def test_end_of_the_process_is_watched_until_it_comes() -> None:
    state = state_after("start ready stop")
    end = state.watch_end()
    assert not end.done()
    state.end()
    assert end.done()
    assert state.watch_end().done()
    assert state_after("start fail").watch_end().done()
