"""Admission before a local model, with an engine process that has no model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from abstractllm import AbstractLLMError, GenerationTimeoutError, Tool
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.protocol.child_process import EngineProcess
from abstractllm.requests import make_request
from tests.unit import stand_in_engine
from tests.waiting import until


@pytest.fixture
async def llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HuggingFaceProvider]:
    """One whose process answers one request at a time, a token each 5 ms."""
    stand_in_engine.use(monkeypatch)
    (tmp_path / "slow").mkdir()
    llm = HuggingFaceProvider({"model": str(tmp_path / "slow"), "max_queue": 20})
    yield llm
    await llm.close_async()


async def ask(llm: HuggingFaceProvider, caller: str = "", **options: object) -> str:
    request = make_request("Hi", **{"max_tokens": 20, **options})
    object.__setattr__(request, "caller", caller)
    try:
        async for _ in llm.run(request):
            pass
    except AbstractLLMError as error:
        return str(error.reason)
    return "ok"


async def test_requests_that_cannot_be_checked_before_the_model_is_loaded_are_bounded(llm: HuggingFaceProvider) -> None:
    tasks = [asyncio.create_task(ask(llm, "many", tools=[Tool("f")])) for _ in range(60)]
    await until(lambda: sum(task.done() for task in tasks) == 40)
    assert llm.queued == 20
    one = asyncio.create_task(ask(llm, "one", tools=[Tool("f")]))
    await until(lambda: sum(task.done() for task in tasks) == 41)
    for task in (one, *tasks):
        task.cancel()
    await asyncio.wait([one, *tasks])
    assert llm.queued == 0


async def test_request_that_waits_to_be_checked_has_waited(llm: HuggingFaceProvider) -> None:
    request = make_request("Hi", tools=[Tool("f")], timeout=0.3)
    with pytest.raises(GenerationTimeoutError):
        await llm.run_to_end(request)
    assert 0.2 < request.record.facts()["queued"] < 60


async def test_request_that_cannot_meet_its_deadline_never_reaches_the_engine(llm: HuggingFaceProvider) -> None:
    await llm.load()
    assert [await ask(llm, max_tokens=60) for _ in range(4)] == ["ok"] * 4  # so long does an answer take
    waiting = [asyncio.create_task(ask(llm, "many", max_tokens=60)) for _ in range(10)]
    await until(lambda: llm.queued >= 6)
    before = llm.counters.accepted
    began = time.monotonic()
    assert await ask(llm, "many", max_tokens=60, timeout=0.7) == "OVERLOADED"
    assert time.monotonic() - began < 0.5
    assert llm.counters.accepted == before
    assert Counter(await asyncio.gather(*waiting)) == {"ok": 10}
    assert llm.counters.accepted == llm.counters.released


async def test_limits_of_callers_hold_for_a_local_model_too(llm: HuggingFaceProvider) -> None:
    llm.set_config(callers={"*": {"max_running": 1, "max_queue": 2}, "rich": {"tokens_per_minute": 1}})
    await llm.load()
    ends = await asyncio.gather(*(ask(llm, "one") for _ in range(5)), ask(llm, "other"))
    assert Counter(ends) == {"ok": 4, "RATE_LIMITED": 2}
    assert ends[-1] == "ok"
    assert [await ask(llm, "rich"), await ask(llm, "rich")] == ["ok", "RATE_LIMITED"]


async def test_who_waits_for_a_limit_goes_on_as_soon_as_that_is_gone(llm: HuggingFaceProvider) -> None:
    llm.set_config(callers={"one": {"max_running": 1}})
    running = asyncio.create_task(ask(llm, "one", max_tokens=100_000))
    await until(lambda: llm.counters.running)
    waiting = asyncio.create_task(ask(llm, "one"))
    await until(lambda: llm.queued_bytes)
    llm.set_config(callers={})
    assert llm.queued_bytes == 0  # the engine has it
    running.cancel()
    assert await waiting == "ok"
    await asyncio.wait([running])


async def test_engine_for_which_there_is_no_thread_fails_its_requests_and_is_tried_again(
    llm: HuggingFaceProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        ends = [await ask(llm), await ask(llm)]
    assert ends == ["MODEL_LOAD_FAILED"] * 2
    assert llm.state[0] == "failed"
    assert await ask(llm) == "ok"
    assert llm.counters.accepted == llm.counters.released == 3


async def test_what_a_process_says_after_it_was_given_up_is_no_fault(
    llm: HuggingFaceProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It answers on until it is killed.
    kill = EngineProcess.kill
    monkeypatch.setattr(EngineProcess, "kill", lambda self: threading.Timer(0.3, kill, (self,)).start())
    answer = asyncio.create_task(ask(llm, max_tokens=10_000))
    await until(lambda: llm.counters.running)
    (engine,) = llm._pool.engines
    supervisor = engine.resident
    assert supervisor.process is not None
    supervisor._end_frozen(supervisor.process, "got no further")
    assert await answer == "ENGINE_CRASHED"
    assert await ask(llm) == "ok"
    assert llm.engine_statistics.restarts == {"crashed": 0, "frozen": 1}
    assert "Error" not in caplog.text


@pytest.mark.parametrize("limits", [{"max_queue": 0}, {"callers": {"*": {"max_queue": 0}}}], ids=["all", "callers"])
async def test_a_model_before_which_nobody_may_wait_is_loaded_all_the_same(
    llm: HuggingFaceProvider, limits: dict[str, object]
) -> None:
    llm.set_config(**limits)
    assert await ask(llm) in ("OVERLOADED", "RATE_LIMITED")
    await until(lambda: llm.state[0] == "ready")
    assert await ask(llm) == "ok"
    async for _ in llm.unload():
        pass
    # It waits for what its check must know: this model has no place for tools.
    assert await ask(llm, tools=[Tool("f")]) == "UNSUPPORTED_FEATURE"
