"""The meaning of each error for the other LLMs, and the time at which an LLM that keeps failing is asked again."""

import asyncio
import logging
import random

import pytest

from abstractllm import AbstractLLMError, ErrorReason, InternalError
from abstractllm.providers.fallback.circuit_breaker import LONGEST_RETRY_AFTER, CircuitBreaker
from abstractllm.providers.fallback.verdicts import VERDICTS, Verdict
from abstractllm.testing import ScriptedProvider
from tests.unit.fallbacks import failing, falling_back, saying, scripted


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(CircuitBreaker.__init__, "__defaults__", (clock,))
    return clock


def flaky(name, *steps):
    """Plays a script for each request, the last for all that follow; counts the requests."""
    left = [[step] for step in steps]
    return scripted(name, script=lambda request: left.pop(0) if len(left) > 1 else left[0])


ERROR, ANSWER = {"error": "PROVIDER_UNAVAILABLE"}, {"text": "ok"}


@pytest.mark.parametrize("reason", list(ErrorReason))
async def test_each_reason_goes_to_the_next_llm_or_to_the_caller_as_the_table_says(reason):
    first, second = failing("a", str(reason), message="no"), saying("b")
    llm = falling_back(first, second, failure_threshold=1)
    if VERDICTS[reason] is Verdict.STOP:
        with pytest.raises(AbstractLLMError) as caught:
            await llm.complete_async("Hi")
        assert (caught.value.reason, caught.value.llm, caught.value.message) == (reason, "a", "no")
    else:
        answer = await llm.complete_async("Hi")
        assert [(attempt.llm, attempt.error_reason) for attempt in answer.attempts] == [("a", reason), ("b", "")]
    cools_down = "a cools down" in llm.state[1]
    assert cools_down is (VERDICTS[reason] is Verdict.NEXT)


def test_the_page_s_table_says_what_is_done_about_each_reason(repository):
    words = {Verdict.NEXT: "the next LLM; counts", Verdict.SKIP: "the next LLM", Verdict.STOP: "the caller"}
    page = (repository / "docs/providers/fallback.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    told = {row[0].strip("| `"): row[1] for row in rows if row[0].strip("| `") in list(ErrorReason)}
    assert told == {str(reason): words[verdict] for reason, verdict in VERDICTS.items()}
    assert set(VERDICTS) == set(ErrorReason)


async def test_the_text_of_a_fault_of_the_software_goes_to_the_log_and_not_to_the_caller(caplog):
    llm = falling_back(scripted("a", script=[ZeroDivisionError("secret detail")]), saying("b"))
    with caplog.at_level(logging.ERROR):
        answer = await llm.complete_async("Hi", request_id="r1")
    assert "secret detail" not in answer.attempts[0].message
    assert "r1" in answer.attempts[0].message
    assert "secret detail" in caplog.text
    with pytest.raises(InternalError) as caught:
        await falling_back(scripted("a", script=[ZeroDivisionError("secret detail")])).complete_async("Hi")
    assert "secret detail" not in caught.value.message


async def test_an_llm_that_keeps_failing_cools_down_and_then_one_request_tries_it(clock):
    first, second = flaky("a", ERROR, ERROR, ERROR, ANSWER), saying("b")
    llm = falling_back(first, second, failure_threshold=2, cooldown_time=30)
    for _ in range(5):
        assert (await llm.complete_async("Hi")).llm == "b"
    assert len(first.requests) == 2
    assert llm.state[1] == "a cools down for 30 s after 2 failures"
    clock.now += 30
    assert (await llm.complete_async("Hi")).attempts[0].llm == "a"
    assert len(first.requests) == 3  # it failed again, and cools down again
    assert len((await llm.complete_async("Hi")).attempts) == 1
    clock.now += 30
    assert (await llm.complete_async("Hi")).llm == "a"
    assert (await llm.complete_async("Hi")).llm == "a"
    assert llm.state[1] == ""


async def test_only_one_request_at_a_time_tries_an_llm_that_has_cooled_down(clock):
    released = asyncio.Event()

    class Slow(ScriptedProvider):
        async def events(self, request, config):
            await released.wait()
            async for event in super().events(request, config):
                yield event

    first, second = Slow(), saying("b")
    first.name = "a"
    llm = falling_back(first, second, failure_threshold=1)
    llm._members[0].breaker.record_failure(1, 30)
    clock.now += 31
    trial = asyncio.create_task(llm.complete_async("Hi"))
    while not first.running:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert {(await llm.complete_async("Hi")).llm for _ in range(3)} == {"b"}
    released.set()
    assert (await trial).llm == "a"
    assert (await llm.complete_async("Hi")).llm == "a"


def test_an_older_request_that_ends_does_not_let_a_second_one_try(clock):
    breaker = CircuitBreaker()
    older = breaker.acquire()
    breaker.record_failure(1, 30)
    clock.now += 31
    probe = breaker.acquire()
    assert probe is not None
    breaker.release(older)
    assert breaker.acquire() is None
    breaker.release(probe)
    assert breaker.acquire() is not None


async def test_a_trial_that_tells_nothing_leaves_the_next_request_to_try(clock):
    class Hanging(ScriptedProvider):
        async def events(self, request, config):
            await asyncio.sleep(60)
            yield

    first = Hanging()
    llm = falling_back(first, saying("b"), failure_threshold=1)
    llm._members[0].breaker.record_failure(1, 30)
    clock.now += 31
    for _ in range(2):
        trial = asyncio.create_task(llm.complete_async("Hi"))
        while not first.running:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial


async def test_an_llm_that_asks_for_time_cools_down_from_its_first_failure_on(clock):
    first = failing("a", "RATE_LIMITED", retry_after=12)
    llm = falling_back(first, saying("b"))
    for _ in range(3):
        await llm.complete_async("Hi")
    assert len(first.requests) == 1
    clock.now += 12
    await llm.complete_async("Hi")
    assert len(first.requests) == 2


async def test_no_provider_can_make_itself_cool_down_for_a_day(clock):
    first = failing("a", "RATE_LIMITED", retry_after=86400)
    llm = falling_back(first, saying("b"))
    await llm.complete_async("Hi")
    clock.now += LONGEST_RETRY_AFTER
    await llm.complete_async("Hi")
    assert len(first.requests) == 2


async def test_if_all_cool_down_the_one_whose_cooldown_ends_first_is_asked(clock):
    first, second = flaky("a", ERROR, ANSWER), flaky("b", ERROR)
    llm = falling_back(second, first, failure_threshold=1, cooldown_time=30)
    for member, seconds in zip(llm._members, (60, 30), strict=True):
        member.breaker.record_failure(1, seconds)
    with pytest.raises(AbstractLLMError):
        await llm.complete_async("Hi")
    assert (await llm.complete_async("Hi")).llm == "a"
    assert len(second.requests) == 0


async def test_if_no_other_can_answer_the_one_whose_cooldown_ends_first_is_asked_last(clock):
    cooling, other = saying("a"), saying("b")
    llm = falling_back(failing("c", "QUOTA_EXCEEDED"), cooling, other, failure_threshold=9)
    for member, seconds in zip(llm._members[1:], (30, 60), strict=True):
        member.breaker.record_failure(1, seconds)
    answer = await llm.complete_async("Hi")
    assert [attempt.llm for attempt in answer.attempts] == ["c", "a"]
    assert not other.requests


async def test_answers_that_break_off_count_as_failures_and_whole_ones_wipe_them_out(clock):
    half = [{"text": "half"}, ERROR]
    scripts = [half, [ANSWER], half, half]
    first = scripted("a", script=lambda request: scripts.pop(0))
    llm = falling_back(first, saying("b"), failure_threshold=2)
    for fails in (True, False, True, True):
        if fails:
            with pytest.raises(AbstractLLMError):
                await llm.complete_async("Hi")
        else:
            await llm.complete_async("Hi")
    assert (await llm.complete_async("Hi")).llm == "b"


@pytest.mark.parametrize("strategy", ["ordered", "round_robin", "least_busy"])
async def test_whatever_goes_wrong_at_once_every_request_ends_and_nothing_is_left(strategy):
    dice = random.Random(strategy)
    faults = (
        [ERROR],
        [{"error": "RATE_LIMITED", "retry_after": 0.01}],
        [{"text": "half"}, ERROR],
        [{"break_off": True}],
        [{"delay": 60}],
        [{"text": "half"}, {"delay": 60}],
        [ANSWER],
        [{"delay": 0.01}, ANSWER],
    )
    llms = [scripted(name, script=lambda request: dice.choice(faults), timeout=0.2) for name in "abc"]
    llm = falling_back(*llms, strategy=strategy, max_retries=1, failure_threshold=2, cooldown_time=0.02)

    async def ask():
        await asyncio.sleep(dice.random() * 0.5)
        try:
            answer = await asyncio.wait_for(llm.complete_async("Hi", timeout=0.3), dice.choice([0.05, 20]))
        except TimeoutError:
            return "cancelled"
        except AbstractLLMError as error:
            return error.reason
        assert answer.text == "ok"
        assert [bool(attempt.error_reason) for attempt in answer.attempts] == [True] * (len(answer.attempts) - 1) + [
            False
        ]
        return "answered"

    ends = set(await asyncio.gather(*(ask() for _ in range(300))))
    assert {"answered", "cancelled", "TIMEOUT", "PROVIDER_UNAVAILABLE"} <= ends
    assert [one.running for one in (llm, *llms)] == [0] * 4
    assert all(one.released == one.answered for one in llms)
    # None of them is taken for being tried for ever.
    for one in llms:
        one._script = [ANSWER]
    await asyncio.sleep(0.05)
    assert all(member.breaker.acquire() is not None for member in llm._members)
