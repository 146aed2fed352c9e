"""SetConfig of a loaded model: the new one is loaded beside the old one, then they swap; or nothing is changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import config_pb2 as pb
from abstractllm_api.v1 import generation_pb2 as gen
from abstractllm_api.v1 import models_pb2
from tests.server.support import Serving, failure, serving
from tests.unit import stand_in_engine
from tests.unit.tiny_models import build
from tests.waiting import until

HANG = 100.0
"""Seconds after which a test gives up waiting; loading a model takes some on a busy machine."""
ENDLESS = {1: -100.0, 3: -100.0}
"""Forbids the end tokens."""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of three models of engines that start in a moment; the last one cannot be loaded."""
    stand_in_engine.use(monkeypatch)
    return [str(tmp_path / name) for name in ("old", "slow", "broken")]


@pytest.fixture
def real_models(tmp_path: Path) -> list[str]:
    """Two whose answers last for minutes, if nothing ends them."""
    names = ("old", "new")
    return [
        str(build(tmp_path / name, "llama", seed=seed, max_position_embeddings=100_000))
        for seed, name in enumerate(names)
    ]


@asynccontextmanager
async def local(models: list[str], **settings: Any) -> AsyncIterator[tuple[Serving, HuggingFaceProvider]]:
    """A server with one local LLM that is loaded, and a scripted one."""
    config = {"model": models[0], "models": models[1:], "temperature": 0, "threads": 1, "max_batch_size": 8}
    llm = HuggingFaceProvider(config)
    async with serving({"local": llm, "other": ScriptedProvider()}, preload=("local",), **settings) as served:
        await until(lambda: llm.state[0] == "ready")
        yield served, llm


async def read(stream: Any) -> Any:
    """The next message of a stream."""
    return await asyncio.wait_for(stream.read(), HANG)


def ask(**fields: Any) -> gen.GenerateRequest:
    return gen.GenerateRequest(prompt="hello", parameters=gen.GenerationParameters(**fields))


async def generate(served: Serving, **fields: Any) -> gen.GenerateResponse:
    return await served.generation.Generate(ask(**fields), timeout=HANG)


async def change(
    served: Serving, *, etag: str = "", validate_only: bool = False, **fields: Any
) -> pb.SetConfigResponse:
    message = pb.SetConfigRequest(config=pb.LlmConfig(**fields), etag=etag, validate_only=validate_only)
    return await asyncio.wait_for(served.config.SetConfig(message), HANG)


async def get(served: Serving) -> pb.GetConfigResponse:
    return await served.config.GetConfig(pb.GetConfigRequest())


def engines(llm: HuggingFaceProvider) -> list[int]:
    """The process ids of all engines that the LLM has."""
    return [engine.pid for engine in llm._pool.engines if engine.pid is not None]


async def test_swap_lets_no_request_fail_or_wait(real_models: list[str]) -> None:
    models = real_models
    async with local(models) as (served, llm):
        old_text = (await generate(served, max_tokens=8)).text
        old_pid = llm.engine_pid
        long = served.generation.StreamGenerate(ask(max_tokens=700, logit_bias=ENDLESS))
        assert (await read(long)).started.model == models[0]
        swap = asyncio.create_task(change(served, model=models[1]))
        before: list[str] = []
        while not swap.done():
            answer = await generate(served, max_tokens=8)
            assert (answer.model == models[0]) == (answer.text == old_text)
            before.append(answer.model)
        assert before.count(models[0]) > 2  # they were answered while the new one was loading
        assert before == sorted(before, key=models.index)

        answered = await swap
        assert answered.config.model == models[1]
        after = await generate(served, max_tokens=8)
        assert (after.model, after.text != old_text) == (models[1], True)
        pieces = 0
        while (event := await read(long)).WhichOneof("event") != "finished":
            pieces += len(event.text_delta.text)
        assert pieces > 100
        await until(lambda: engines(llm) == [llm.engine_pid])
        assert llm.engine_pid not in (None, old_pid)


async def test_model_that_cannot_be_loaded_changes_nothing(models: list[str]) -> None:
    async with local(models) as (served, llm):
        before, pid = await get(served), llm.engine_pid
        error = await failure(change(served, model=models[2], system_prompt="new"))
        assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_LOAD_FAILED")
        assert error.metadata["llm"] == "local"
        assert await get(served) == before
        assert engines(llm) == [pid]
        assert (await generate(served, max_tokens=2)).model == models[0]


@pytest.mark.parametrize("way", ["leaving", "unloading", "closing"])
async def test_swap_that_is_broken_off_changes_nothing_and_leaves_no_engine(models: list[str], way: str) -> None:
    async with local(models) as (served, llm):
        before, pid = await get(served), llm.engine_pid
        call = served.config.SetConfig(pb.SetConfigRequest(config=pb.LlmConfig(model=models[1])))
        await until(lambda: len(engines(llm)) == 2)
        match way:
            case "leaving":
                call.cancel()
                await until(lambda: engines(llm) == [pid])
            case "unloading":
                reports = served.models.UnloadModel(models_pb2.UnloadModelRequest(llm="local"))
                states = [report.state async for report in reports]
                assert states[-1] == models_pb2.LLM_STATE_UNLOADED
                error = await failure(call)
                assert (error.code.name, error.reason) == ("CANCELLED", "CANCELLED")
                assert engines(llm) == []
            case "closing":
                await asyncio.wait_for(llm.close_async(), HANG)
                assert (await failure(call)).reason == "SHUTTING_DOWN"
                assert engines(llm) == []
        assert await get(served) == before


async def test_model_that_is_not_loaded_is_changed_at_once(models: list[str]) -> None:
    config = {"model": models[0], "models": models[1:], "temperature": 0, "threads": 1}
    llm = HuggingFaceProvider(config)
    async with serving({"local": llm}, preload=(), max_loaded=1) as served:
        await change(served, model=models[2])
        await change(served, model=models[1], quantization=pb.QUANTIZATION_INT8, validate_only=True)
        await change(served, model=models[1])
        assert (llm.state, engines(llm)) == (("unloaded", ""), [])
        assert (await generate(served, max_tokens=2)).model == models[1]


async def test_two_that_do_not_fit_need_to_be_told_to_replace(models: list[str]) -> None:
    async with local(models, max_loaded=1) as (served, llm):
        before, pid = await get(served), llm.engine_pid
        for validate_only in (True, False):
            error = await failure(change(served, model=models[1], validate_only=validate_only))
            assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_IN_USE")
            assert "max_loaded is 1" in error.message
            assert "provider_options.replace" in error.message
        error = await failure(change(served, model=models[1], provider_options={"replace": "yes"}))
        assert error.fields == ["config.provider_options.replace"]
        await change(served, model=models[1], provider_options={"replace": True}, validate_only=True)
        assert (await get(served), engines(llm)) == (before, [pid])

        long = served.generation.StreamGenerate(ask(max_tokens=200, logit_bias=ENDLESS))
        await read(long)
        swap = asyncio.create_task(change(served, model=models[1], provider_options={"replace": True}))
        await until(lambda: "replaces model" in llm.state[1])
        assert llm.state[0] == "loading"
        assert engines(llm) == [pid]
        waiting = asyncio.create_task(generate(served, max_tokens=2))
        while (event := await read(long)).WhichOneof("event") != "finished":
            pass
        assert event.finished.finish_reason == gen.FINISH_REASON_MAX_TOKENS
        answered = await swap
        assert (await waiting).model == models[1]
        assert answered.config.model == models[1]
        assert not answered.config.HasField("provider_options")
        assert engines(llm) == [llm.engine_pid]

        # The change is taken back if the new one cannot be loaded; the next request loads the old one again.
        now = await get(served)
        error = await failure(change(served, model=models[2], provider_options={"replace": True}))
        assert error.reason == "MODEL_LOAD_FAILED"
        assert await get(served) == now
        assert (await generate(served, max_tokens=2)).model == models[1]


async def test_changes_of_one_llm_take_turns_and_hold_up_no_other(models: list[str]) -> None:
    async with local(models) as (served, llm):
        etag = (await get(served)).etag
        swap = asyncio.create_task(change(served, model=models[1], etag=etag))
        await until(lambda: len(engines(llm)) == 2)
        late = asyncio.create_task(failure(change(served, max_retries=3, etag=etag)))
        other = pb.SetConfigRequest(llm="other", config=pb.LlmConfig(system_prompt="x"))
        assert (await served.config.SetConfig(other)).config.system_prompt == "x"
        assert (await get(served)).etag == etag
        assert not swap.done()
        assert (await swap).config.model == models[1]
        assert (await late).reason == "STALE_CONFIG"
        assert (await get(served)).config.max_retries == 0
        # The file lists the old one: a request may name it, and it is loaded again.
        assert (await generate(served, model=models[0], max_tokens=2)).model == models[0]


async def test_how_long_it_stays_loaded_can_be_changed_while_it_is_idle(models: list[str]) -> None:
    async with local(models) as (served, llm):
        message = pb.LlmConfig()
        message.keep_alive.FromMilliseconds(200)
        await served.config.SetConfig(pb.SetConfigRequest(config=message))
        await until(lambda: llm.state[0] == "unloaded")
        assert (await generate(served, max_tokens=2)).model == models[0]
