"""From a request to its events: order, folding, retries, deadlines, refusals, cancellation."""

import asyncio
import gc
import inspect
import time
import weakref
from contextlib import aclosing

import pytest

from abstractllm import (
    LLM,
    Capabilities,
    ChatMessage,
    ContextLengthExceededError,
    Finished,
    FinishReason,
    GenerationTimeoutError,
    Image,
    IncompleteStreamError,
    InternalError,
    ModelNotFoundError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    Reasoning,
    RegexFormat,
    Role,
    Started,
    Text,
    TextDelta,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    Usage,
)
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider
from tests.waiting import until

NOTHING = Capabilities(system_prompt=False, chat=False, parameters=("max_tokens",))


def failing_first(*errors):
    """A script that raises the given errors, one a try, and then answers."""
    left = list(errors)
    return lambda request: [left.pop(0)] if left else [{"text": "at last"}]


async def test_started_comes_first_and_finished_last_and_the_deltas_join_to_the_unary_text():
    llm = ScriptedProvider({"script": [{"reasoning": "hm hm"}, {"text": "a b  c\n"}, {"tool_call": {"name": "f"}}]})
    events = [event async for event in llm.stream_async("Hi")]
    answer = await llm.complete_async("Hi")
    assert isinstance(events[0], Started)
    assert [isinstance(event, Finished) for event in events] == [False] * (len(events) - 1) + [True]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer.text == "a b  c\n"
    assert events[-1].message == answer.message
    assert answer.message.parts == (Reasoning("hm hm"), Text("a b  c\n"), ToolCall("call_0", "f", "{}"))
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.usage == Usage(input_tokens=1, output_tokens=6)
    assert [attempt.error_reason for attempt in answer.attempts] == [""]


async def test_tool_call_fragments_join():
    llm = ScriptedProvider({"script": [{"tool_call": {"id": "7", "name": "f", "arguments": {"x": [1, 2]}}}]})
    fragments = [event async for event in llm.stream_async("Hi") if isinstance(event, ToolCallDelta)]
    assert len(fragments) == 2
    assert (await llm.complete_async("Hi")).tool_calls == (ToolCall("7", "f", '{"x": [1, 2]}'),)


async def test_a_retryable_error_before_the_first_event_is_tried_again():
    script = failing_first(ProviderUnavailableError("down", retry_after=0.01), RateLimitedError("slow"))
    llm = ScriptedProvider({"max_retries": 2}, script=script)
    answer = await llm.complete_async("Hi")
    assert answer.text == "at last"
    assert [attempt.error_reason for attempt in answer.attempts] == ["PROVIDER_UNAVAILABLE", "RATE_LIMITED", ""]


@pytest.mark.parametrize(
    ("retries", "error"), [(1, ProviderUnavailableError("down")), (5, QuotaExceededError("used up"))]
)
async def test_retries_end_with_their_number_and_never_begin_on_a_final_error(retries, error):
    script = failing_first(error, error, error)
    llm = ScriptedProvider({"max_retries": retries}, script=script)
    with pytest.raises(type(error)):
        await llm.complete_async("Hi")
    assert len(llm.requests) == (2 if error.retryable else 1)


async def test_nothing_is_tried_again_after_the_first_event():
    llm = ScriptedProvider({"max_retries": 3, "script": [{"text": "a b"}, {"error": "PROVIDER_UNAVAILABLE"}]})
    with pytest.raises(ProviderUnavailableError) as caught:
        await llm.complete_async("Hi", request_id="r1")
    assert caught.value.partial_text == "a b"
    assert (caught.value.provider, caught.value.llm, caught.value.request_id) == ("scripted", "scripted", "r1")
    assert len(llm.requests) == 1


@pytest.mark.parametrize(
    "rest",
    [[{"text": "a b"}, {"delay": 60}], [{"delay": 60}], [{"text": "a b"}, {"break_off": True}]],
    ids=["left", "left before it began", "broken off"],
)
async def test_an_answer_that_does_not_come_to_its_end_has_all_its_tries_in_the_record(rest):
    scripts = iter([[RateLimitedError("slow", retry_after=0.01)], rest])
    llm = ScriptedProvider({"max_retries": 1}, script=lambda _: next(scripts))
    request = make_request("Hi")
    call = asyncio.create_task(llm.run_to_end(request))
    await until(lambda: len(llm.requests) == 2)
    await asyncio.wait([call], timeout=0.2)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert len(request.record.attempts) == request.record.facts()["attempts"] == 2


async def test_a_retry_that_would_outlast_the_deadline_is_not_waited_for():
    llm = ScriptedProvider({"max_retries": 3, "script": [{"error": "RATE_LIMITED", "retry_after": 60}]})
    began = time.monotonic()
    with pytest.raises(RateLimitedError):
        await llm.complete_async("Hi", timeout=5)
    assert time.monotonic() - began < 5


async def test_the_deadline_ends_a_stream_between_two_events_and_releases_the_provider():
    llm = ScriptedProvider({"script": [{"text": "a"}, {"delay": 60}, {"text": "b"}]})
    with pytest.raises(GenerationTimeoutError) as caught:
        await llm.complete_async("Hi", timeout=0.1)
    assert caught.value.partial_text == "a"
    assert (llm.released, llm.running) == (1, 0)


async def test_the_configured_timeout_bounds_a_longer_wish():
    llm = ScriptedProvider({"script": [{"delay": 60}], "timeout": 0.1})
    with pytest.raises(GenerationTimeoutError):
        await llm.complete_async("Hi", timeout=50)


async def test_a_stream_without_a_finish_reason_is_incomplete():
    llm = ScriptedProvider({"script": [{"text": "half"}, {"break_off": True}]})
    with pytest.raises(IncompleteStreamError) as caught:
        await llm.complete_async("Hi")
    assert caught.value.partial_text == "half"


async def test_an_unforeseen_exception_becomes_an_internal_error_with_its_cause():
    llm = ScriptedProvider(script=[ZeroDivisionError("oops")])
    with pytest.raises(InternalError) as caught:
        await llm.complete_async("Hi")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_what_the_llm_cannot_do_is_refused_by_name():
    llm = ScriptedProvider(capabilities=NOTHING)
    image = ChatMessage(Role.USER, (Image(b"x", "image/png"),))
    for prompt, options, field in [
        ("Hi", {"system_prompt": "Be nice."}, "system_prompt"),
        ("Hi", {"tools": [Tool("f")]}, "tools"),
        ("Hi", {"response_format": RegexFormat("a")}, "response_format.regex"),
        ([image], {}, "chat.messages.image"),
        ([ChatMessage(Role.USER, (Text("Hi"),))], {}, "chat"),
    ]:
        with pytest.raises(UnsupportedFeatureError) as caught:
            await llm.complete_async(prompt, **options)
        assert caught.value.field == field


async def test_an_unsupported_parameter_is_refused_or_dropped_and_listed():
    llm = ScriptedProvider(capabilities=NOTHING)
    wishes = {"temperature": 0.5, "max_tokens": 9, "provider_options": {"colour": "red"}}
    with pytest.raises(UnsupportedParameterError) as caught:
        await llm.complete_async("Hi", **wishes)
    assert caught.value.field == "parameters.temperature"
    answer = await llm.complete_async("Hi", **wishes, parameters_policy="drop_unsupported")
    assert answer.dropped_parameters == ("parameters.temperature", "provider_options.colour")
    assert llm.requests[-1].parameters.set_fields() == {"max_tokens": 9, "model": "script"}
    assert llm.requests[-1].provider_options == {}


async def test_the_configurations_defaults_fill_what_a_request_leaves_open():
    config = {"system_prompt": "Be nice.", "temperature": 0.5, "max_tokens": 9, "models": ["other"]}
    llm = ScriptedProvider(config)
    await llm.complete_async("Hi", temperature=0, model="other")
    request = llm.requests[-1]
    assert request.parameters.set_fields() == {"model": "other", "temperature": 0, "max_tokens": 9}
    assert request.conversation()[0].text == "Be nice."


async def test_a_model_that_is_not_listed_is_refused():
    with pytest.raises(ModelNotFoundError) as caught:
        await ScriptedProvider({"models": ["other"]}).complete_async("Hi", model="third")
    assert caught.value.field == "parameters.model"
    assert caught.value.limit == "script, other"


async def test_closing_the_stream_releases_the_provider_at_once():
    llm = ScriptedProvider({"script": [{"text": "a"}, {"delay": 60}]})
    async with aclosing(llm.stream_async("Hi")) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert (llm.released, llm.running) == (1, 0)


async def test_cancelling_the_task_releases_the_provider():
    llm = ScriptedProvider({"script": [{"text": "a"}, {"delay": 60}]})
    task = asyncio.create_task(llm.complete_async("Hi"))
    while not llm.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (llm.released, llm.running) == (1, 0)


async def test_running_requests_keep_their_configuration():
    llm = ScriptedProvider({"reply": "old words", "delay": 0.01})
    events = llm.stream_async("Hi")
    await anext(events)
    llm.set_config(reply="new")
    rest = [event.text async for event in events if isinstance(event, TextDelta)]
    assert "".join(rest) == "old words"
    assert await llm.generate_async("Hi") == "new"


async def test_counting_checks_its_request_as_generation_does():
    llm = ScriptedProvider({"system_prompt": "Be nice."})
    assert await llm.count_tokens_async("one two three") == 5
    with pytest.raises(ModelNotFoundError):
        await llm.count_tokens_async("one", model="third")


def test_errors_keep_their_facts():
    error = ContextLengthExceededError("too long", field="prompt", limit=10, requested=12)
    error.fill(field="other", provider="x")
    assert (error.field, error.limit, error.requested, error.provider) == ("prompt", 10, 12, "x")


async def test_a_retry_that_a_provider_puts_off_for_long_is_left_to_the_caller():
    llm = ScriptedProvider({"max_retries": 3, "script": [{"error": "RATE_LIMITED", "retry_after": 3600}]})
    with pytest.raises(RateLimitedError) as caught:
        await llm.complete_async("Hi")
    assert caught.value.retry_after == 3600
    assert len(llm.requests) == 1


# The faces of an LLM.


def test_an_llm_that_is_dropped_is_gone_at_once_without_the_collector():
    llm = ScriptedProvider()
    llm.generate("Hi")
    reference = weakref.ref(llm)
    gc.disable()
    try:
        del llm
        assert reference() is None
    finally:
        gc.enable()


async def test_a_stream_keeps_its_llm():
    events = ScriptedProvider({"reply": "one two"}).stream_async("Hi")
    assert "".join([event.text async for event in events if isinstance(event, TextDelta)]) == "one two"


def test_the_synchronous_twin_calls_the_asynchronous_method_of_a_subclass():
    class Counting(ScriptedProvider):
        async def count_tokens_async(self, prompt, system_prompt=None, *, tools=(), model=None):
            """Counts in another way."""
            return 7

    assert Counting().count_tokens("Hi") == 7
    twin, method = LLM.count_tokens, LLM.count_tokens_async
    assert (twin.__name__, twin.__qualname__, twin.__doc__) == ("count_tokens", "LLM.count_tokens", method.__doc__)
    assert inspect.signature(twin) == inspect.signature(method)


async def test_log_probabilities_that_were_sent_are_not_kept():
    def script(request):
        for number in range(200):
            yield TextDelta("word ", (TokenLogprob(number, "word ", b"word ", -1.0),))

    def living():
        return sum(type(value) is TokenLogprob for value in gc.get_objects())

    llm = ScriptedProvider(script=script)
    before, received = living(), 0
    async for event in llm.stream_async("Hi"):
        received += isinstance(event, TextDelta)
        if received == 150:
            assert living() - before < 10
    assert received == 200
    assert len((await llm.complete_async("Hi")).logprobs) == 200
