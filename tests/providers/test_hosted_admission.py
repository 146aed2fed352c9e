"""Admission before a hosted LLM: nothing waits without a bound, and nobody behind hundreds of another's requests."""

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest

from abstractllm import AbstractLLMError, ErrorReason, OverloadedError, RateLimitedError, TextDelta, create_llm
from abstractllm.interface import AbstractLLMInterface
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as pb
from tests.providers import ollama_server
from tests.providers.fake_http import HANG, Exchange, FakeServer, answering, hanging
from tests.providers.openai_server import asking, saying
from tests.server.support import failure
from tests.server.support import serving as grpc_serving
from tests.waiting import until


async def ask(llm: AbstractLLMInterface[Any], caller: str = "", prompt: str = "Hi", **options: Any) -> str:
    """Asks on behalf of a caller; returns the text, or the reason of the failure."""
    request = make_request(prompt, **options)
    object.__setattr__(request, "caller", caller)
    try:
        return (await llm.run_to_end(request)).text
    except AbstractLLMError as error:
        has_advice = error.is_turned_away and (error.retry_after or 0) >= 0.5
        is_refusal = isinstance(error, OverloadedError | RateLimitedError)
        return str(error.reason) if has_advice or not is_refusal else f"{error.reason} without advice"


async def end(tasks: list[asyncio.Task[str]], server: FakeServer) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await server.settled()


async def test_what_waits_behind_a_hanging_upstream_is_bounded_and_told_at_once():
    async with asking(hanging, max_concurrent_requests=4, max_queue=20, max_retries=2) as (llm, server):
        began = time.monotonic()
        tasks = [asyncio.create_task(ask(llm)) for _ in range(400)]
        await until(lambda: sum(task.done() for task in tasks) == 376 and server.running == 4)
        # No attempt of its own follows: those would wait, with their bytes, where nothing is bounded.
        assert time.monotonic() - began < HANG / 2
        assert Counter(task.result() for task in tasks if task.done()) == {"OVERLOADED": 376}
        assert (llm.queued, len(server.requests)) == (20, 4)
        await end(tasks, server)
        assert (llm.queued, llm.running) == (0, 0)


async def test_waiting_requests_of_a_hosted_llm_are_bounded_in_bytes_too():
    async with asking(hanging, max_concurrent_requests=1, max_queue_bytes="1MiB") as (llm, server):
        tasks = [asyncio.create_task(ask(llm, prompt="x" * 100_000)) for _ in range(50)]
        await until(lambda: sum(task.done() for task in tasks) == 39)
        assert llm.queued == 10
        assert 1_000_000 <= llm.queued_bytes <= 1 << 20
        await end(tasks, server)
        assert llm.queued_bytes == 0


async def test_many_requests_of_one_caller_hold_up_no_request_of_another():
    order: list[str] = []

    async def handle(exchange: Exchange) -> None:
        order.append(exchange.request.json["messages"][0]["content"])
        await asyncio.sleep(0.005)
        await saying("ok")(exchange)

    async with asking(handle, max_concurrent_requests=2, max_queue=150) as (llm, _):
        many = [asyncio.create_task(ask(llm, "many", "many")) for _ in range(300)]
        await until(lambda: llm.queued > 100)
        begun = len(order)
        assert await asyncio.wait_for(ask(llm, "one", "one"), HANG) == "ok"
        assert order.index("one") - begun <= 4
        ends = Counter(await asyncio.gather(*many))
        # One of them has made place for the other caller.
        assert ends["ok"] <= 152
        assert ends["ok"] + ends["OVERLOADED"] == 300


async def test_callers_of_the_server_are_told_when_to_come_again_and_answered_later():
    released = asyncio.Event()

    async def handle(exchange: Exchange) -> None:
        await released.wait()
        await saying("ok")(exchange)

    async with asking(handle, max_concurrent_requests=1, max_queue=2) as (llm, _), grpc_serving({"gpt": llm}) as served:
        calls = [served.generation.Generate(pb.GenerateRequest(prompt="Hi"), timeout=HANG) for _ in range(3)]
        await until(lambda: llm.queued == 2)
        refusal = await failure(served.generation.Generate(pb.GenerateRequest(prompt="Hi")))
        assert refusal.reason == "OVERLOADED"
        assert "max_queue is 2" in refusal.message
        ((delay,), (pushback,)) = refusal.retry_delays, refusal.pushbacks
        assert 0.5 <= delay <= 60
        assert abs(int(pushback) / 1000 - delay) < 0.01
        released.set()
        assert [(await call).text for call in calls] == ["ok"] * 3


async def test_request_that_cannot_meet_its_deadline_is_refused_when_it_comes_and_never_sent():
    async def handle(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await saying("ok")(exchange)

    async with asking(handle, max_concurrent_requests=1) as (llm, server):
        assert [await ask(llm) for _ in range(3)] == ["ok"] * 3  # so long does an answer take
        waiting = [asyncio.create_task(ask(llm)) for _ in range(10)]
        await until(lambda: llm.queued == 9)
        began = time.monotonic()
        assert await ask(llm, timeout=1.0) == "OVERLOADED"
        assert time.monotonic() - began < 0.5
        assert await ask(llm, "other", timeout=HANG) == "ok"  # it is their turn next
        assert set(await asyncio.gather(*waiting)) == {"ok"}
        assert len(server.requests) == 14


async def test_limits_of_a_caller_are_told_as_such_and_change_while_it_runs():
    async with asking(saying("ok"), callers={"*": {"tokens_per_minute": 1}}) as (llm, server):
        assert await ask(llm, "one", max_tokens=10) == "ok"
        assert await ask(llm, "one", max_tokens=10) == "RATE_LIMITED"
        assert await ask(llm, "other", max_tokens=10) == "ok"
        llm.set_config(callers={"one": {"tokens_per_minute": 100_000}})
        assert await ask(llm, "one", max_tokens=10) == "ok"
        assert len(server.requests) == 3


async def test_callers_who_leave_before_the_end_are_charged_for_what_came():
    pieces = [f"{number} " for number in range(300)]

    async def handle(exchange: Exchange) -> None:
        await saying(*pieces)(exchange)

    async with asking(handle, callers={"*": {"tokens_per_minute": 500}}) as (llm, server):
        ends = []
        for _ in range(4):
            request = make_request("Hi", max_tokens=400)
            ends.append("")
            try:
                async with aclosing(llm.run(request)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta) and event.text.startswith("290"):
                            ends[-1] = "left"
                            break
            except RateLimitedError as error:
                ends[-1] = str(error.reason)
        assert ends == ["left", "left", "RATE_LIMITED", "RATE_LIMITED"]
        assert len(server.requests) == 2


async def test_limits_of_one_caller_close_no_llm_of_a_fallback_to_others():
    async with asking(saying("first"), callers={"many": {"tokens_per_minute": 1}}) as (llm, _):
        second = ScriptedProvider({"provider_options": {"reply": "second"}})
        fallback = create_llm("fallback", llms=[llm, second], failure_threshold=1, cooldown_time=60)
        assert [await ask(fallback, "many") for _ in range(3)] == ["first", "second", "second"]
        assert await ask(fallback, "one") == "first"
        await second.close_async()


async def test_requests_that_pause_before_a_retry_are_bounded():
    async with asking(
        answering({"error": {"message": "busy"}}, 503, {"retry-after": "25"}),
        max_retries=2,
        max_queue=1000,
        max_concurrent_requests=10,
    ) as (llm, server):
        tasks = [asyncio.create_task(ask(llm)) for _ in range(300)]
        await until(lambda: len(server.requests) == 300 and sum(task.done() for task in tasks) == 300 - 256)
        assert {task.result() for task in tasks if task.done()} <= {
            str(ErrorReason.PROVIDER_UNAVAILABLE),
            str(ErrorReason.OVERLOADED),
        }
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert llm.running == 0


async def test_requests_that_wait_for_what_ollama_says_of_the_model_are_bounded():
    handler = ollama_server.serves(hanging, show=hanging)
    async with ollama_server.asking(handler, max_queue=20, max_concurrent_requests=4) as (llm, server):
        tasks = [asyncio.create_task(ask(llm, "many")) for _ in range(200)]
        await until(lambda: sum(task.done() for task in tasks) == 180 and server.running == 4)
        assert {task.result() for task in tasks if task.done()} == {"OVERLOADED"}
        late = asyncio.create_task(ask(llm, "one"))
        await until(lambda: sum(task.done() for task in tasks) == 181)
        assert not late.done()
        await end([*tasks, late], server)
        assert (llm.queued, llm.running) == (0, 0)


@pytest.mark.parametrize("limits", [{"max_queue": 0}, {"callers": {"*": {"max_queue": 0}}}], ids=["all", "callers"])
async def test_an_ollama_server_before_which_nobody_may_wait_is_asked_all_the_same(limits: dict[str, Any]):
    says = ollama_server.says(ollama_server.answer("yes"))
    async with ollama_server.asking(says, **limits) as (llm, _):
        assert await ask(llm) == "yes"
