"""Loading, unloading, changing, asking, leaving and closing at any moment, with engines that start in a moment."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import tracemalloc
from contextlib import aclosing, suppress
from pathlib import Path

import psutil
import pytest

from abstractllm import LLMRegistry, errors
from abstractllm._core import model_memory
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.types import LlmState
from tests.unit import stand_in_engine
from tests.waiting import until

HANG = 60.0
"""Seconds after which a test gives up waiting."""
ALLOWED = (
    errors.EngineCrashedError,
    errors.GenerationCancelledError,
    errors.GenerationTimeoutError,
    errors.ModelInUseError,
    errors.OverloadedError,
    errors.ServerShuttingDownError,
)
"""The errors that a call may end in: OVERLOADED where its turn comes just before its deadline, and the last only once
the LLM is closed."""


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine processes run `stand_in_engine.py`, and turns are short."""
    stand_in_engine.use(monkeypatch)
    monkeypatch.setattr(model_memory, "_PATIENCE", 0.05)
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 0.05)
    monkeypatch.setattr(model_memory, "_LOOK_AGAIN", 0.02)


def registry_of(folder: Path, *names: str, **limits: int) -> tuple[LLMRegistry, list[HuggingFaceProvider]]:
    """LLMs of these models; each may also be asked for the others."""
    paths = [str(folder / name) for name in names]
    lines = {
        name: {"provider": "huggingface", "model": path, "models": paths}
        for name, path in zip(names, paths, strict=True)
    }
    registry = LLMRegistry.from_config(lines, **limits)
    return registry, [llm for llm in registry if isinstance(llm, HuggingFaceProvider)]


def engine_parts() -> set[object]:
    """The threads and processes that engines of this process have."""
    names = ("engine", "child", "Timer", "Thread")
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(names)]
    return {*threads, *psutil.Process().children(recursive=True)}


async def unload(llm: HuggingFaceProvider, force: bool) -> None:
    async for _ in llm.unload(force=force):
        pass


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_at_whatever_moment_every_call_ends_and_nothing_is_left(
    tmp_path: Path, seed: int
) -> None:
    descriptors, before = psutil.Process().num_fds(), engine_parts()
    chance = random.Random(seed)
    names = ("quick", "slow", "crashing")
    registry, llms = registry_of(tmp_path, *names, max_loaded=2)
    most = 0
    answers = 0

    async def act() -> None:
        nonlocal answers
        llm = chance.choice(llms)
        model = chance.choice(llm.config.models)
        try:
            match chance.choice(["ask"] * 6 + ["leave", "load", "unload", "force", "change", "replace", "count"]):
                case "ask":
                    timeout = chance.choice([0.05, 1.0, None])
                    await llm.generate_async("x", max_tokens=chance.randint(1, 5), model=model, timeout=timeout)
                    answers += 1
                case "leave":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(chance.random() * 0.3):
                            await llm.generate_async("x", model=model)
                case "load":
                    async with aclosing(llm.load_progress()) as steps:
                        async for _ in steps:
                            if chance.random() < 0.2:
                                break
                case "unload":
                    await unload(llm, False)
                case "force":
                    await unload(llm, True)
                case "change":
                    await llm.set_config_async(model=model)
                case "replace":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(chance.random()):
                            await llm.set_config_async(model=model, provider_options={"replace": True})
                case "count":
                    await llm.count_tokens_async("x")
        except ALLOWED[:-1]:
            pass

    async def go_on(end: float) -> None:
        while asyncio.get_running_loop().time() < end or not answers:
            await act()
            await asyncio.sleep(chance.random() * 0.05)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len({*psutil.Process().children()} - before))
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    end = asyncio.get_running_loop().time() + 2.5
    await asyncio.wait_for(asyncio.gather(*(go_on(end) for _ in range(12))), HANG)
    assert answers > 0
    assert most <= 2
    late = [asyncio.create_task(act()) for _ in range(30)]
    await asyncio.sleep(chance.random() * 0.2)
    await asyncio.wait_for(registry.close(), HANG)
    for result in await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), HANG):
        assert result is None or isinstance(result, errors.ServerShuttingDownError)
    watching.cancel()
    assert all(llm.running == llm.queued == 0 for llm in llms)
    await until(lambda: engine_parts() <= before and psutil.Process().num_fds() <= descriptors)


async def test_unload_and_load_in_each_others_way(tmp_path: Path) -> None:
    registry, (llm,) = registry_of(tmp_path, "slow")
    for _ in range(3):
        loads = [asyncio.create_task(llm.load()) for _ in range(3)]
        await until(lambda: llm.engine_pid is not None)
        unloading = asyncio.create_task(unload(llm, False))
        await asyncio.sleep(0)
        again = [asyncio.create_task(llm.load()) for _ in range(3)]
        await asyncio.wait_for(unloading, HANG)
        for load in again:  # came while it was unloaded: it is loaded again for them
            await asyncio.wait_for(load, HANG)
        for result in await asyncio.gather(*loads, return_exceptions=True):
            assert result is None or isinstance(result, errors.GenerationCancelledError)
        assert llm.state[0] is LlmState.READY
        await unload(llm, False)
    await registry.close()


async def test_steady_requests_for_more_models_than_places_are_all_answered(tmp_path: Path) -> None:
    registry, llms = registry_of(tmp_path, "a", "b", "c", "d", max_loaded=2)
    rounds = [0] * len(llms)

    async def ask(index: int) -> None:
        while min(rounds) < 3:
            await llms[index].generate_async("x", max_tokens=3)
            rounds[index] += 1

    await asyncio.wait_for(asyncio.gather(*(ask(index) for index in range(4) for _ in range(3))), HANG)
    await registry.close()


async def test_engine_that_keeps_crashing_does_not_keep_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 600.0)
    registry, (crashing, other) = registry_of(tmp_path, "crashing", "other", max_loaded=1)
    crashes = 0
    done = asyncio.Event()

    async def ask() -> None:
        nonlocal crashes
        while not done.is_set():
            try:
                await crashing.generate_async("x", max_tokens=2)
            except errors.EngineCrashedError:
                crashes += 1

    asking = asyncio.create_task(ask())
    await until(lambda: crashes == 1)
    await asyncio.wait_for(other.generate_async("x", max_tokens=2), HANG)
    done.set()
    await asyncio.wait_for(asking, HANG)
    await registry.close()


async def test_many_loads_and_unloads_keep_no_memory(tmp_path: Path) -> None:
    registry, (llm,) = registry_of(tmp_path, "quick")

    async def cycles(count: int) -> int:
        for _ in range(count):
            await llm.generate_async("x", max_tokens=3)
            await unload(llm, False)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        await cycles(5)
        await cycles(20)
        sizes = [await cycles(40) for _ in range(3)]
    finally:
        tracemalloc.stop()
    await registry.close()
    # Forty cycles; what one leaves would be there forty times, each time. Other tests' threads may add to one of them.
    assert min(after - before for before, after in itertools.pairwise(sizes)) < 40 * 250
