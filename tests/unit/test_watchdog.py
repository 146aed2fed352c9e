"""The watchdog of a child process: when it loses patience, and with whom it does not."""

from __future__ import annotations

from typing import Any

import pytest

from abstractllm.providers.huggingface.protocol.messages import LOADING, Counted, Pong
from abstractllm.providers.huggingface.protocol.watchdog import Patience, Watchdog

PATIENCE = Patience(heartbeat=8.0, step=20.0, load=50.0)


class QuietChannel:
    """A channel to a process that sends nothing by itself."""

    is_drained = True

    def send(self, frame: bytes, urgent: bool = False) -> None:
        pass


class Watched:
    """A watchdog whose time the test tells, one second a tick."""

    def __init__(self, is_loaded: bool = True) -> None:
        self.channel: Any = QuietChannel()
        self.silences: list[bool] = []
        self.is_loaded = is_loaded
        self.watchdog = Watchdog(
            self.channel,
            on_timeout=lambda reason: None,
            on_silence=self.silences.append,
            patience=lambda: PATIENCE,
            is_loaded=lambda: self.is_loaded,
        )
        self.watchdog.heard(Pong({}))
        assert self.watchdog.tick(0.0, 1.0) == ""

    def seconds_until_timeout(self, limit: int, message: Any = None) -> tuple[int, str]:
        """Lets time pass, with a message before each tick; returns when the watchdog lost patience, and why."""
        for second in range(1, limit + 1):
            if message is not None:
                self.watchdog.heard(message() if callable(message) else message)
            if reason := self.watchdog.tick(1.0, 1.0):
                return second, reason
        return limit, ""


def test_silence_is_suspicious_first_and_beyond_its_bound_within_it() -> None:
    watched = Watched()
    seconds, reason = watched.seconds_until_timeout(20)
    assert seconds <= PATIENCE.heartbeat
    assert reason == "gave no sign of life within 8 s"
    assert watched.silences == [True]


def test_process_that_speaks_again_is_suspected_no_more() -> None:
    watched = Watched()
    watched.seconds_until_timeout(6)
    assert watched.silences == [True]
    assert watched.watchdog.silence == 6
    watched.watchdog.heard(Counted(1, 1))
    assert watched.watchdog.tick(1.0, 1.0) == ""
    assert watched.silences == [True, False]
    assert watched.watchdog.silence < 1


def test_loading_process_may_be_silent_four_times_as_long_and_is_not_suspected() -> None:
    watched = Watched(is_loaded=False)
    seconds, reason = watched.seconds_until_timeout(100)
    assert (seconds, reason) == (31, "gave no sign of life within 32 s")
    assert watched.silences == []


def test_first_sign_of_life_may_take_as_long_as_loading() -> None:
    watchdog = Watchdog(QuietChannel(), on_timeout=lambda reason: None, patience=lambda: PATIENCE)  # type: ignore[arg-type]
    assert [bool(watchdog.tick(1.0, 1.0)) for _ in range(30)] == [False] * 30
    assert watchdog.tick(1.0, 1.0) == "gave no sign of life within 32 s"


def test_silence_does_not_count_while_something_is_left_to_be_read() -> None:
    watched = Watched()
    watched.channel.is_drained = False
    assert watched.seconds_until_timeout(100) == (100, "")


def test_piece_of_work_that_never_ends_is_beyond_its_bound() -> None:
    seconds, reason = Watched().seconds_until_timeout(100, Pong({"a step of the batch": 7}))
    assert seconds <= PATIENCE.step
    assert reason == "got no further with a step of the batch within 20 s"


def test_pieces_of_work_that_end_go_on_for_ever() -> None:
    numbers = iter(range(1000))
    assert Watched().seconds_until_timeout(500, lambda: Pong({"a step of the batch": next(numbers)})) == (500, "")
    assert Watched().seconds_until_timeout(500, Pong({})) == (500, "")


def test_loading_has_a_bound_of_its_own_and_progress_begins_it_again() -> None:
    seconds, reason = Watched(is_loaded=False).seconds_until_timeout(100, Pong({LOADING: 1}))
    assert PATIENCE.step < seconds <= PATIENCE.load
    assert reason == "got no further with the loading of the model within 50 s"
    numbers = (second // 40 for second in range(1000))
    watched = Watched(is_loaded=False)
    assert watched.seconds_until_timeout(500, lambda: Pong({LOADING: next(numbers)})) == (500, "")


@pytest.mark.parametrize("field", ["heartbeat_timeout", "step_timeout", "load_timeout"])
def test_bounds_are_keys_of_a_local_llm_and_change_while_it_is_loaded(field: str) -> None:
    from abstractllm.providers.huggingface.config import HuggingFaceConfig

    config = HuggingFaceConfig.parse({field: "12s"})
    patience = config.engine_settings().limits.patience
    assert getattr(patience, field.removesuffix("_timeout")) == 12
    assert config.load_settings() == HuggingFaceConfig.parse({}).load_settings()
