"""The record of a call: each part fills in what it knows, and an answer that ends early has its counts, too."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from abstractllm.call_record import CallRecord
from abstractllm.errors import EngineCrashedError, GenerationTimeoutError, OverloadedError, RateLimitedError
from abstractllm.providers.fallback import FallbackProvider
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider
from abstractllm.types import Finished, TextDelta, Usage
from tests.providers.fake_http import hanging, in_turn
from tests.providers.openai_server import asking, failing, saying
from tests.unit.tiny_models import build
from tests.waiting import until

ENDLESS = {1: -100.0, 3: -100.0}
PATIENCE = 90.0


async def leave_after(llm, request, pieces: int) -> None:
    """Reads some pieces of text, and leaves."""
    async with aclosing(llm.run(request)) as events:
        async for event in events:
            pieces -= isinstance(event, TextDelta)
            if not pieces:
                return


# Hosted LLMs.


async def test_a_hosted_answer_leaves_its_calls_upstream_in_the_record():
    async with asking(in_turn(failing(429, "slow down"), saying("Paris", " it", " is")), max_retries=1) as (llm, _):
        request = make_request("Where?", labels={"team": "maps"}, request_id="r-1")
        await llm.run_to_end(request)
        record = request.record
    assert (record.operation, record.llm, record.provider, record.model) == (
        "chat",
        "openai",
        "openai",
        llm.config.model,
    )
    assert (record.request_id, record.labels, record.finish_reason) == ("r-1", {"team": "maps"}, "stop")
    assert (record.input_tokens, record.output_tokens, record.cached_input_tokens, record.reasoning_tokens) == (
        11,
        7,
        4,
        3,
    )
    refused, answered = record.upstream
    assert (refused.error_reason, refused.usage, refused.first_event_at) == ("RATE_LIMITED", None, None)
    assert (answered.error_reason, answered.usage) == ("", Usage(11, 7, 4, 3))
    assert answered.address == "127.0.0.1" and answered.port
    assert refused.began_at < refused.ended_at < answered.began_at < answered.first_event_at < answered.ended_at
    assert [attempt.error_reason for attempt in record.attempts] == ["RATE_LIMITED", ""]
    assert record.queued is not None and record.error is None


async def test_a_hosted_answer_that_is_left_has_the_pieces_until_then():
    async with asking(saying(*"abcdefgh")) as (llm, _):
        request = make_request("Where?")
        await leave_after(llm, request, 3)
    (call,) = request.record.upstream
    assert request.record.output_tokens == 3
    assert (call.error_reason, call.usage) == ("CANCELLED", None) and call.ended_at is not None
    assert [attempt.llm for attempt in request.record.attempts] == ["openai"]


async def test_a_hosted_llm_that_hangs_is_told_from_a_caller_who_leaves():
    async with asking(hanging) as (llm, _):
        left = make_request("Where?")
        leaving = asyncio.create_task(llm.run_to_end(left))
        await until(lambda: left.record.upstream)  # the API's package is there: a short timeout is the API's alone
        leaving.cancel()
        await asyncio.wait([leaving])
        late = make_request("Where?", timeout=0.3)
        with pytest.raises(GenerationTimeoutError):
            await llm.run_to_end(late)
    reasons = [call.error_reason for record in (left.record, late.record) for call in record.upstream]
    assert reasons == ["CANCELLED", "TIMEOUT"]


async def test_the_record_of_a_fallback_is_that_of_the_llm_that_answered():
    first = ScriptedProvider(script=[RateLimitedError("no")])
    second = ScriptedProvider({"model": "other"}, script=[{"text": "yes it is"}])
    llm = FallbackProvider({"llms": [first, second]})
    llm.name = "best"
    request = make_request("Is it?")
    await llm.run_to_end(request)
    record = request.record
    assert (record.llm, record.provider, record.model) == ("best", "scripted", "other")
    assert record.error is None and record.finish_reason == "stop" and record.output_tokens == 3
    assert [attempt.error_reason for attempt in record.attempts] == ["RATE_LIMITED", ""]


async def test_who_waits_in_vain_has_waited():
    async with asking(hanging, max_concurrent_requests=1, max_queue=1) as (llm, server):
        running = asyncio.create_task(llm.run_to_end(make_request("Where?")))
        await until(lambda: server.running)
        late, refused = make_request("Where?", timeout=0.3), make_request("Where?")
        waiting = asyncio.create_task(llm.run_to_end(late))
        await until(lambda: llm.queued)
        with pytest.raises(OverloadedError):
            await llm.run_to_end(refused)
        with pytest.raises(GenerationTimeoutError):
            await waiting
        running.cancel()
        await asyncio.wait([running])
    assert 0.2 < late.record.queued < PATIENCE
    assert refused.record.queued is None


class Limited(ScriptedProvider):
    """An LLM that neither answers nor counts."""

    def __init__(self):
        super().__init__(script=[RateLimitedError("no")])

    async def count(self, request, config):
        raise RateLimitedError("no")


async def test_what_one_llm_of_a_fallback_failed_with_is_not_how_the_call_ended():
    llm = FallbackProvider({"llms": [Limited(), ScriptedProvider(script=[{"text": "one two three"}])]})
    left, counted = make_request("Count"), make_request("Count")
    await leave_after(llm, left, 2)
    assert (left.record.error, left.record.output_tokens) == (None, 2)
    await llm.run_count(counted)
    assert counted.record.error is None


async def test_a_failure_is_in_the_record_with_the_tokens_until_then():
    llm = ScriptedProvider(script=[{"text": "one two three"}, {"break_off": True}])
    request = make_request("Count")
    with pytest.raises(Exception, match="finish reason") as caught:
        await llm.run_to_end(request)
    assert request.record.error is caught.value
    assert request.record.output_tokens == caught.value.output_tokens == 3


async def test_a_request_that_is_run_again_counts_anew():
    llm = ScriptedProvider(script=[{"text": "one two three"}])
    request = make_request("Count")
    await llm.run_to_end(request)
    await leave_after(llm, request, 2)
    assert request.record.output_tokens == 2


async def test_a_count_of_tokens_is_another_operation():
    request = make_request("one two")
    await ScriptedProvider().run_count(request)
    assert (request.record.operation, request.record.finish_reason) == ("count_tokens", "")


# Local models.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HuggingFaceProvider]:
    directory: Path = build(tmp_path_factory.mktemp("models") / "llama", "llama", max_position_embeddings=4096)
    llm = HuggingFaceProvider({"model": str(directory), "threads": 1, "max_batch_size": 2, "kv_cache_bytes": 1 << 20})
    await asyncio.wait_for(llm.load(), PATIENCE)
    yield llm
    await llm.close_async()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_local_answer_has_its_phases(local: HuggingFaceProvider) -> None:
    request = make_request("hello", max_tokens=20, logit_bias=ENDLESS)
    events = [event async for event in local.run(request)]
    record, end = request.record, events[-1]
    assert isinstance(end, Finished)
    assert (record.input_tokens, record.output_tokens) == (end.usage.input_tokens, 20)
    assert record.queued is not None and record.prefill is not None and record.decode is not None
    assert 0 < record.queued + record.prefill + record.decode <= end.timing.total
    assert record.prefill > 0 and record.decode > 0 and record.upstream == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_streamed_local_answer_that_is_left_has_its_counts(local: HuggingFaceProvider) -> None:
    request = make_request("hello", max_tokens=2000, logit_bias=ENDLESS)
    await leave_after(local, request, 3)
    record = request.record
    assert record.input_tokens and record.output_tokens and record.output_tokens >= 3
    assert record.prefill is not None and record.decode is not None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_local_request_that_waits_in_vain_has_waited(local: HuggingFaceProvider) -> None:
    late = make_request("Count", timeout=0.3)
    running = [asyncio.create_task(leave_after(local, make_request("Count", logit_bias=ENDLESS), 10_000)) for _ in "ab"]
    await until(lambda: local.counters.running == 2)
    with pytest.raises(GenerationTimeoutError):
        await local.run_to_end(late)
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert late.record.output_tokens is None
    assert 0.2 < late.record.queued < PATIENCE


@pytest.mark.asyncio(loop_scope="module")
async def test_a_whole_local_answer_that_is_left_has_its_counts(local: HuggingFaceProvider) -> None:
    request = make_request("hello", max_tokens=2000, logit_bias=ENDLESS)
    call = asyncio.create_task(local.run_to_end(request))
    record = request.record
    await until(lambda: (record.output_tokens or 0) > 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert record.input_tokens and record.first_token_at is not None
    assert record.queued is not None and record.prefill is not None and record.decode is not None


@pytest.mark.asyncio(loop_scope="module")
async def test_the_work_of_engines_never_falls_when_processes_end(local: HuggingFaceProvider) -> None:
    before = local.engine_statistics
    assert before.loads == 1 and before.generated_tokens > 0 and before.load_seconds > 0
    assert before.weights_bytes > 0 and before.kv_cache_bytes > 0
    request = make_request("hello", max_tokens=3000, logit_bias=ENDLESS)
    call = asyncio.create_task(local.run_to_end(request))
    await until(lambda: (request.record.output_tokens or 0) > 1)
    assert 0 < local.engine_statistics.kv_cache_usage <= 1
    assert local.engine_pid is not None
    os.kill(local.engine_pid, signal.SIGKILL)
    with pytest.raises(EngineCrashedError) as caught:
        await call
    # An answer that was to come whole has its count in the error, too.
    assert request.record.output_tokens == caught.value.output_tokens > 1
    await asyncio.wait_for(local.load(), PATIENCE)
    after = local.engine_statistics
    assert after.restarts == {"crashed": 1, "frozen": 0} and after.loads == 2
    assert after.generated_tokens > before.generated_tokens and after.steps > before.steps
    await local.complete_async("hello", max_tokens=2)
    async for _ in local.unload():
        pass
    unloaded = local.engine_statistics
    assert unloaded.generated_tokens >= after.generated_tokens + 2 and unloaded.weights_bytes == 0


def test_a_new_record_is_that_of_a_call_that_has_just_begun():
    record = CallRecord()
    assert record.seconds >= 0 and record.time_to_first_token is None and record.attempts == ()
