"""The fallback provider: who is asked, who answers, and what is told of those that did not."""

import asyncio
import threading
from collections import Counter
from contextlib import aclosing

import pytest

from abstractllm import (
    Capabilities,
    ConfigurationError,
    ContentBlockedError,
    Finished,
    GenerationTimeoutError,
    IncompleteStreamError,
    JsonObjectFormat,
    LlmState,
    ModelNotFoundError,
    OverloadedError,
    ProviderUnavailableError,
    RateLimitedError,
    ServerShuttingDownError,
    Started,
    TextDelta,
    UnsupportedFeatureError,
    UnsupportedParameterError,
)
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider
from tests.unit.fallbacks import NOTHING, failing, falling_back, saying, scripted
from tests.waiting import until

HANG = 20.0
# Who answers, and how that is told.


async def test_the_first_llm_that_can_answers_and_the_answer_says_who_and_lists_all_attempts():
    llm = falling_back(
        failing("a", message="down"), failing("b", "QUOTA_EXCEEDED", upstream_status=429), saying("c", model="m")
    )
    answer = await llm.complete_async("Hi", request_id="r1")
    assert (answer.text, answer.llm, answer.provider, answer.model) == ("c says", "c", "scripted", "m")
    told = [(a.llm, a.provider, a.model, a.error_reason, a.message) for a in answer.attempts]
    assert told == [
        ("a", "scripted", "script", "PROVIDER_UNAVAILABLE", "down"),
        ("b", "scripted", "script", "QUOTA_EXCEEDED", "scripted QUOTA_EXCEEDED"),
        ("c", "scripted", "m", "", ""),
    ]
    assert all(attempt.duration >= 0 for attempt in answer.attempts)


async def test_a_stream_is_the_answering_llm_s_and_its_start_has_the_id_of_the_whole_request():
    answering = saying("b", "one two")
    llm = falling_back(failing("a"), answering)
    events = [event async for event in llm.stream_async("Hi")]
    assert isinstance(events[0], Started)
    assert (events[0].llm, events[0].id) == ("b", answering.requests[0].request_id)
    assert [event.text for event in events[1:-1]] == ["one", " two"]
    assert isinstance(events[-1], Finished)
    assert [attempt.error_reason for attempt in events[-1].attempts] == ["PROVIDER_UNAVAILABLE", ""]


async def test_the_same_request_id_goes_to_every_llm():
    llms = failing("a"), saying("b")
    await falling_back(*llms).complete_async("Hi", request_id="r1")
    assert [llm.requests[0].request_id for llm in llms] == ["r1", "r1"]


async def test_after_the_first_event_an_error_is_the_caller_s():
    first = scripted("a", script=[{"text": "half an"}, {"error": "PROVIDER_UNAVAILABLE", "message": "gone"}])
    second = saying("b")
    with pytest.raises(ProviderUnavailableError) as caught:
        await falling_back(first, second, max_retries=3).complete_async("Hi")
    assert (caught.value.partial_text, caught.value.llm, caught.value.message) == ("half an", "a", "gone")
    assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_an_error_that_an_llm_raises_again_and_again_lists_each_request_s_attempts_alone():
    for script in ([ContentBlockedError("no")], [{"text": "half"}, ContentBlockedError("no")]):
        llm = falling_back(failing("a"), scripted("b", script=script))
        for _ in range(2):
            with pytest.raises(ContentBlockedError, match="no") as caught:
                await llm.complete_async("Hi")
            assert [attempt.llm for attempt in caught.value.attempts] == ["a", "b"]


async def test_an_answer_that_ends_before_it_began_goes_to_the_next_and_one_that_began_does_not():
    assert await falling_back(scripted("a", script=[{"break_off": True}]), saying("b")).generate_async("Hi") == "b says"
    llm = falling_back(scripted("a", script=[{"text": "half"}, {"break_off": True}]), saying("b"))
    with pytest.raises(IncompleteStreamError) as caught:
        await llm.generate_async("Hi")
    assert caught.value.partial_text == "half"


async def test_if_none_can_answer_the_error_is_the_most_telling_one_and_holds_every_attempt():
    llm = falling_back(
        failing("a", "PROVIDER_CREDENTIALS", message="bad key"),
        failing("b", "RATE_LIMITED", retry_after=7, upstream_status=429),
        scripted("c", capabilities=NOTHING),
    )
    with pytest.raises(RateLimitedError) as caught:
        await llm.complete_async("Hi", temperature=0.5)
    error = caught.value
    assert (error.llm, error.upstream_status, error.retry_after) == ("b", 429, 7)
    reasons = ["PROVIDER_CREDENTIALS", "RATE_LIMITED", "UNSUPPORTED_PARAMETER"]
    assert [attempt.error_reason for attempt in error.attempts] == reasons
    for part in ("a: PROVIDER_CREDENTIALS: bad key", "b: RATE_LIMITED", "c: UNSUPPORTED_PARAMETER", "temperature"):
        assert part in error.message


async def test_a_wait_is_asked_for_only_if_every_llm_that_may_recover_asks_for_one():
    async def wait(*llms):
        with pytest.raises(OverloadedError) as caught:
            await falling_back(*llms).complete_async("Hi")
        return caught.value.retry_after

    assert await wait(failing("a", "OVERLOADED", retry_after=9), failing("b", "OVERLOADED", retry_after=4)) == 4
    assert await wait(failing("a", "OVERLOADED", retry_after=9), failing("b", "OVERLOADED")) is None
    assert await wait(failing("a", "OVERLOADED", retry_after=9), failing("b", "QUOTA_EXCEEDED")) == 9


async def test_an_llm_does_not_try_again_while_another_stands_by_but_all_are_asked_again(monkeypatch):
    # The wait is a random part of half a second, which could be shorter than what the first LLM asks for.
    monkeypatch.setattr("abstractllm._core.deadlines.random.uniform", lambda low, high: high / 10)
    left = [RateLimitedError("slow", retry_after=0.01), ProviderUnavailableError("down")]

    def script(request):
        return [left.pop(0)] if left else [{"text": "at last"}]

    first = scripted("a", script=script, max_retries=5)
    second = scripted("b", script=script, max_retries=5)
    answer = await falling_back(first, second, max_retries=1).complete_async("Hi")
    assert [(attempt.llm, attempt.error_reason) for attempt in answer.attempts] == [
        ("a", "RATE_LIMITED"),
        ("b", "PROVIDER_UNAVAILABLE"),
        ("a", ""),
    ]


async def test_a_long_wait_is_not_waited_out_if_another_llm_is_there():
    llm = falling_back(failing("a", "RATE_LIMITED", retry_after=3600), saying("b"))
    assert await asyncio.wait_for(llm.generate_async("Hi"), HANG) == "b says"


# Deadlines and cancellation.


async def test_an_llm_s_own_timeout_goes_to_the_next_and_the_request_s_ends_everything():
    slow = scripted("a", script=[{"delay": 60}], timeout=0.1)
    assert await falling_back(slow, saying("b")).generate_async("Hi") == "b says"
    slow, slower = scripted("a", script=[{"delay": 60}], timeout=0.1), scripted("b", script=[{"delay": 60}])
    with pytest.raises(GenerationTimeoutError) as caught:
        await falling_back(slow, slower).complete_async("Hi", timeout=0.5)
    assert caught.value.llm == "best"
    assert (slow.running, slower.running, slower.released) == (0, 0, 1)


async def test_the_deadline_bounds_a_second_round_too():
    llm = falling_back(failing("a", "RATE_LIMITED", retry_after=20), max_retries=10)
    with pytest.raises(RateLimitedError):
        await asyncio.wait_for(llm.complete_async("Hi", timeout=5), 5)


async def test_leaving_a_stream_or_cancelling_a_call_ends_the_llm_that_answers():
    running = scripted("b", script=[{"text": "a"}, {"delay": 60}])
    llm = falling_back(failing("a"), running)
    async with aclosing(llm.stream_async("Hi")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert (running.released, running.running, llm.running) == (1, 0, 0)
    task = asyncio.create_task(llm.complete_async("Hi"))
    while running.running == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (running.released, running.running, llm.running) == (2, 0, 0)


# Strategies.


async def test_round_robin_gives_every_llm_its_turn():
    llms = [saying(name) for name in "abc"]
    llm = falling_back(*llms, strategy="round_robin")
    assert [(await llm.complete_async("Hi")).llm for _ in range(6)] == list("abcabc")


def test_round_robin_is_fair_under_threads():
    llms = [saying(name) for name in "abc"]
    llm = falling_back(*llms, strategy="round_robin")
    answered = Counter()

    def ask():
        for _ in range(30):
            answered[llm.complete("Hi").llm] += 1

    async def ask_async():
        for _ in range(30):
            answered[(await llm.complete_async("Hi")).llm] += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads += [threading.Thread(target=lambda: asyncio.run(ask_async())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered == {"a": 60, "b": 60, "c": 60}


async def test_least_busy_asks_the_one_with_the_fewest_requests_and_of_several_the_first():
    llms = [saying(name, delay=0.3) for name in "abc"]
    llm = falling_back(*llms, strategy="least_busy")
    aside = asyncio.create_task(llms[0].complete_async("Hi"))
    while not llms[0].running:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    answers = await asyncio.gather(*(llm.complete_async("Hi") for _ in range(5)))
    await aside
    assert [answer.llm for answer in answers] == ["b", "c", "a", "b", "c"]


async def test_the_strategy_can_be_changed_and_holds_from_the_next_request_on():
    llm = falling_back(saying("a"), saying("b"))
    assert [(await llm.complete_async("Hi")).llm for _ in range(2)] == ["a", "a"]
    assert llm.set_config(strategy="round_robin")["strategy"] == "round_robin"
    assert {(await llm.complete_async("Hi")).llm for _ in range(2)} == {"a", "b"}
    with pytest.raises(ConfigurationError, match="strategy"):
        llm.set_config(strategy="best")


# What is asked for, and what the LLMs can do.


async def test_what_the_fallback_sets_goes_before_an_llm_s_own_defaults_and_a_request_before_both():
    inner = scripted("a", temperature=1, max_tokens=9, system_prompt="Be brief.", model="m")
    llm = falling_back(inner, temperature=0.5, seed=1, system_prompt="Be nice.")
    await llm.complete_async("Hi", seed=2)
    request = inner.requests[0]
    assert request.parameters.set_fields() == {"model": "m", "temperature": 0.5, "max_tokens": 9, "seed": 2}
    assert request.conversation()[0].text == "Be nice."


async def test_an_llm_that_cannot_honour_the_request_is_passed_over_and_does_not_rest():
    plain, able = scripted("a", capabilities=NOTHING, reply="a says"), saying("b")
    llm = falling_back(plain, able, failure_threshold=1)
    for options in ({"temperature": 0.5}, {"response_format": JsonObjectFormat()}, {"provider_options": {"delay": 0}}):
        answer = await llm.complete_async("Hi", **options)
        assert [attempt.llm for attempt in answer.attempts] == ["a", "b"]
        assert answer.attempts[0].error_reason.startswith("UNSUPPORTED")
    assert (await llm.complete_async("Hi")).llm == "a"


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        ({"temperature": 0.5}, UnsupportedParameterError, "parameters.temperature"),
        ({"response_format": JsonObjectFormat()}, UnsupportedFeatureError, "response_format.json_object"),
        ({"provider_options": {"colour": 1}}, UnsupportedParameterError, "provider_options.colour"),
        ({"model": "gpt"}, ModelNotFoundError, "parameters.model"),
    ],
)
async def test_what_no_llm_can_honour_is_refused_by_name(options, kind, field):
    llm = falling_back(scripted("a", capabilities=NOTHING), scripted("b", capabilities=NOTHING), max_retries=5)
    with pytest.raises(kind) as caught:
        await llm.complete_async("Hi", **options)
    assert caught.value.field == field
    assert field in caught.value.message
    assert not caught.value.retryable


async def test_what_the_answering_llm_cannot_honour_is_dropped_and_listed_if_the_request_says_so():
    llm = falling_back(failing("a"), scripted("b", capabilities=NOTHING, reply="b says"))
    answer = await llm.complete_async("Hi", seed=1, max_tokens=9, parameters_policy="drop_unsupported")
    assert (answer.llm, answer.dropped_parameters) == ("b", ("parameters.seed",))


async def test_its_capabilities_are_what_all_its_llms_have_together():
    small = Capabilities(
        tools=True,
        seed=True,
        parameters=("seed", "max_tokens", "top_k"),
        provider_options=("user",),
        context_window=100,
        device="cpu",
        max_concurrent_requests=4,
    )
    large = Capabilities(
        tools=True,
        image_input=True,
        token_counting=True,
        parameters=("temperature", "max_tokens", "seed"),
        context_window=900,
        max_output_tokens=50,
        device="cuda:0",
        max_concurrent_requests=6,
    )
    llm = falling_back(scripted("a", capabilities=small), scripted("b", capabilities=large))
    assert await llm.get_capabilities_async() == Capabilities(
        tools=True,
        token_counting=True,
        parameters=("seed", "max_tokens"),
        context_window=100,
        max_concurrent_requests=10,
    )


async def test_an_llm_that_cannot_tell_its_capabilities_is_left_out_of_them():
    class Unknown(ScriptedProvider):
        async def capabilities(self, config, model):
            raise ProviderUnavailableError("down")

    assert await falling_back(Unknown(), scripted("b", capabilities=NOTHING)).get_capabilities_async() == NOTHING
    with pytest.raises(ProviderUnavailableError):
        await falling_back(Unknown()).get_capabilities_async()


async def test_tokens_are_counted_by_the_first_llm_that_can():
    class Uncounted(ScriptedProvider):
        async def count(self, request, config):
            raise UnsupportedFeatureError("cannot count", field="CountTokens")

    llm = falling_back(Uncounted(), saying("b"), strategy="round_robin")
    assert [await llm.count_tokens_async("one two three") for _ in range(2)] == [3, 3]
    with pytest.raises(UnsupportedFeatureError):
        await falling_back(Uncounted()).count_tokens_async("one")
    with pytest.raises(ModelNotFoundError):
        await llm.count_tokens_async("one", model="gpt")


# Fallbacks of fallbacks.


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("text", ["one two", ""], ids=["midway", "before it begins"])
async def test_an_answer_that_is_left_has_all_llms_that_were_asked_in_the_record(text, nested):
    second = scripted("b", script=[*([{"text": text}] if text else []), {"delay": 60}])
    llm = falling_back(failing("a"), falling_back(failing("x"), second) if nested else second)
    request = make_request("Hi")
    call = asyncio.create_task(llm.run_to_end(request))
    await until(lambda: second.requests)
    await asyncio.wait([call], timeout=0.2)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    told = [(attempt.llm, attempt.error_reason) for attempt in request.record.attempts]
    assert told == [(name, "PROVIDER_UNAVAILABLE") for name in ("ax" if nested else "a")] + [("b", "")]
    whole = make_request("Hi")
    await falling_back(failing("a"), saying("b")).run_to_end(whole)
    assert [attempt.llm for attempt in whole.record.attempts] == ["a", "b"]


async def test_a_fallback_may_be_an_llm_of_another_and_its_attempts_are_told_one_by_one():
    inner = falling_back(failing("a"), failing("b", "QUOTA_EXCEEDED"), max_retries=5)
    inner.name = "inner"
    answer = await falling_back(inner, saying("c")).complete_async("Hi")
    assert [(attempt.llm, attempt.error_reason) for attempt in answer.attempts] == [
        ("a", "PROVIDER_UNAVAILABLE"),
        ("b", "QUOTA_EXCEEDED"),
        ("c", ""),
    ]
    nested = falling_back(failing("x"), saying("y"))
    answer = await falling_back(failing("w"), nested).complete_async("Hi")
    assert [attempt.llm for attempt in answer.attempts] == ["w", "x", "y"]
    assert answer.llm == "y"
    with pytest.raises(ProviderUnavailableError) as caught:
        await falling_back(falling_back(failing("a")), failing("b"), max_retries=1).complete_async("Hi")
    assert [attempt.llm for attempt in caught.value.attempts] == ["a", "b"] * 2


# Life.


def test_it_is_ready_if_any_of_its_llms_is_and_says_which_are_not():
    loading = {"load_delay": 60}
    ready, unloaded = scripted("a"), scripted("b", **loading)
    assert falling_back(ready, unloaded).state == (LlmState.READY, "b is unloaded")
    assert falling_back(unloaded).state == (LlmState.UNLOADED, "b is unloaded")
    failed = scripted("c", load_error="no memory")
    with pytest.raises(Exception, match="no memory"):
        asyncio.run(failed.load())
    assert falling_back(failed, unloaded).state[0] is LlmState.UNLOADED
    assert falling_back(failed).state == (LlmState.FAILED, "c is failed: no memory")


async def test_loading_loads_every_llm_and_fails_only_if_none_can_be_loaded():
    broken, slow = scripted("a", load_error="no memory"), scripted("b", load_delay=0.01)
    llm = falling_back(broken, slow)
    changes = []
    llm.on_change(lambda: changes.append(llm.state[0]))
    await llm.load()
    assert llm.state == (LlmState.READY, "a is failed: no memory")
    assert changes[-1] is LlmState.READY
    with pytest.raises(Exception, match="no memory"):
        await falling_back(broken).load()


async def test_closing_it_refuses_requests_and_leaves_its_llms_to_their_maker():
    inner = saying("a")
    llm = falling_back(inner)
    await llm.close_async()
    with pytest.raises(ServerShuttingDownError):
        await llm.complete_async("Hi")
    with pytest.raises(ServerShuttingDownError):
        await llm.count_tokens_async("Hi")
    assert await inner.generate_async("Hi") == "a says"
