"""LoadModel and UnloadModel on real models in real engine processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio

from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as gen
from abstractllm_api.v1 import models_pb2 as pb
from tests.server.support import Serving, failure, serving
from tests.unit import stand_in_engine
from tests.unit.tiny_models import build
from tests.waiting import until

HANG = 100.0
"""Seconds after which a test gives up waiting; loading a model takes some on a busy machine."""
ENDLESS = {1: -100.0, 3: -100.0}
"""Forbids the end tokens."""
module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers last for minutes, if nothing ends them."""
    return build(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=100_000)


@asynccontextmanager
async def local(directory: Path, **config: Any) -> AsyncIterator[tuple[Serving, HuggingFaceProvider]]:
    """A server with one local LLM that is not loaded."""
    llm = HuggingFaceProvider({"model": str(directory), "temperature": 0, "threads": 1, "max_batch_size": 4} | config)
    async with serving({"local": llm}, preload=()) as served:
        yield served, llm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Serving, HuggingFaceProvider]]:
    """The server of the tests that leave its LLM as they like, and have it loaded or not at their beginning."""
    # The usual cache lies in each test's own home, and another one means another engine.
    async with local(directory, cache_dir=str(tmp_path_factory.mktemp("cache"))) as running:
        yield running


def ask(**fields: Any) -> gen.GenerateRequest:
    return gen.GenerateRequest(prompt="hello", parameters=gen.GenerationParameters(**fields))


async def all_of(stream: Any) -> list[Any]:
    """The messages of a stream that have not been read."""
    messages = []
    while (message := await asyncio.wait_for(stream.read(), HANG)) is not aio.EOF:
        messages.append(message)
    return messages


def load(served: Serving, llm: str = "") -> Any:
    return served.models.LoadModel(pb.LoadModelRequest(llm=llm))


def unload(served: Serving, llm: str = "", force: bool = False) -> Any:
    return served.models.UnloadModel(pb.UnloadModelRequest(llm=llm, force=force))


def names(reports: list[Any]) -> list[str]:
    return [pb.LlmState.Name(report.state).removeprefix("LLM_STATE_") for report in reports]


@module_loop
async def test_load_is_followed_shared_and_outlives_its_callers(shared: tuple[Serving, HuggingFaceProvider]) -> None:
    served, llm = shared
    await all_of(unload(served))
    leaving = load(served)
    first = await leaving.read()
    assert (first.state, first.phase) == (pb.LLM_STATE_LOADING, "starting")
    pids = {llm.engine_pid} - {None}
    leaving.cancel()

    joined = await asyncio.gather(all_of(load(served)), all_of(load(served)))
    for reports in joined:
        assert names(reports)[-1] == "READY"
        assert set(names(reports)[:-1]) <= {"LOADING"}
        assert all(not report.HasField("fraction") or 0 <= report.fraction <= 1 for report in reports)
    assert {report.phase for reports in joined for report in reports} & {"tokenizer", "weights", "preparing"}
    pids |= {llm.engine_pid}
    assert len(pids) == 1
    assert names(await all_of(load(served))) == ["READY"]
    assert llm.engine_pid in pids


@module_loop
async def test_idle_model_is_unloaded_and_loaded_once_by_the_next_fifty_requests(
    shared: tuple[Serving, HuggingFaceProvider],
) -> None:
    served, llm = shared
    text = (await served.generation.Generate(ask(max_tokens=5), timeout=HANG)).text
    reports = await all_of(unload(served))
    assert (names(reports)[-1], reports[-1].running) == ("UNLOADED", 0)
    assert (llm.engine_pid, llm.state[0]) == (None, "unloaded")
    assert names(await all_of(unload(served)))[-1] == "UNLOADED"
    pids: set[int | None] = set()

    def note() -> None:
        pids.add(llm.engine_pid)

    llm.on_change(note)
    calls = [served.generation.Generate(ask(max_tokens=2), timeout=HANG) for _ in range(50)]
    assert {(await call).usage.output_tokens for call in calls} == {2}
    llm.off_change(note)
    assert len(pids - {None}) == 1
    assert (await served.generation.Generate(ask(max_tokens=5), timeout=HANG)).text == text


@module_loop
async def test_used_model_is_unloaded_by_force_alone_and_its_requests_are_told(
    shared: tuple[Serving, HuggingFaceProvider],
) -> None:
    served, llm = shared
    await all_of(load(served))
    running = [served.generation.StreamGenerate(ask(logit_bias=ENDLESS)) for _ in range(12)]
    await until(lambda: llm.running == 12 and llm.queued == 8)

    refused = await failure(all_of(unload(served)))
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "MODEL_IN_USE")
    assert "12 requests" in refused.message
    assert refused.metadata["llm"] == "local"
    assert llm.state[0] == "ready"

    pid = llm.engine_pid
    reports = await all_of(unload(served, force=True))
    assert (reports[0].running, names(reports)[-1], reports[-1].running) == (12, "UNLOADED", 0)
    for stream in running:
        error = await failure(all_of(stream))
        assert (error.code.name, error.reason) == ("CANCELLED", "CANCELLED")
        assert "was unloaded" in error.message
    await served.generation.Generate(ask(max_tokens=2), timeout=HANG)
    assert llm.engine_pid not in (None, pid)


@module_loop
async def test_request_that_comes_while_it_is_unloaded_loads_it_again(
    shared: tuple[Serving, HuggingFaceProvider],
) -> None:
    served, _ = shared
    await all_of(load(served))
    unloading = unload(served)
    await unloading.read()
    answer = served.generation.Generate(ask(max_tokens=3), timeout=HANG)
    loading = asyncio.create_task(all_of(load(served)))
    assert names(await all_of(unloading))[-1:] in ([], ["UNLOADED"])
    assert (await answer).usage.output_tokens == 3
    assert names(await loading)[-1] == "READY"


@module_loop
async def test_unload_ends_a_load_and_its_callers_are_told(shared: tuple[Serving, HuggingFaceProvider]) -> None:
    served, llm = shared
    await all_of(unload(served))
    loading = load(served)
    await loading.read()
    await until(lambda: llm.engine_pid is not None)
    assert names(await all_of(unload(served)))[-1] == "UNLOADED"
    error = await failure(all_of(loading))
    assert (error.code.name, error.reason) == ("CANCELLED", "CANCELLED")
    assert "was unloaded while it was loading" in error.message
    assert llm.engine_pid is None

    waiting = served.generation.Generate(ask(max_tokens=3), timeout=HANG)
    await until(lambda: llm.running == 1)
    assert (await failure(all_of(unload(served)))).reason == "MODEL_IN_USE"
    assert (await waiting).usage.output_tokens == 3


@pytest.mark.parametrize("stage", ["loading", "ready"])
async def test_closing_ends_a_load(directory: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if stage == "ready":  # real engines that have loaded are closed by every other test's server
        stand_in_engine.use(monkeypatch)
    async with local(directory) as (served, llm):
        loading = load(served)
        await loading.read()
        if stage == "ready":
            await all_of(loading)
        else:
            await until(lambda: llm.engine_pid is not None)
        await asyncio.wait_for(llm.close_async(), HANG)
        assert llm.engine_pid is None
        if stage == "loading":
            assert (await failure(all_of(loading))).reason == "SHUTTING_DOWN"
        assert (await failure(all_of(load(served)))).reason == "SHUTTING_DOWN"


async def test_model_that_cannot_be_loaded_is_said_so_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with local(tmp_path / "nowhere") as (served, llm):
        error = await failure(all_of(load(served)))
        assert (error.code.name, error.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        assert "nowhere" in error.message
        assert (error.metadata["llm"], error.metadata["provider"]) == ("local", "huggingface")
        assert llm.state[0] == "failed"
        assert names(await all_of(unload(served)))[-1] == "UNLOADED"
    assert "there is no directory" in caplog.text
    assert "Traceback" not in caplog.text
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{", "utf-8")
    async with local(tmp_path / "broken") as (served, llm):
        error = await failure(all_of(load(served)))
        assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_LOAD_FAILED")


async def test_hosted_llm_is_ready_at_once_and_has_nothing_to_unload() -> None:
    async with serving({"hosted": ScriptedProvider(), "slow": ScriptedProvider({"load_delay": 0.2})}) as served:
        assert names(await all_of(load(served))) == ["READY"]
        assert names(await all_of(load(served, "slow"))) == ["LOADING", "READY"]
        error = await failure(all_of(unload(served)))
        assert (error.code.name, error.reason) == ("UNIMPLEMENTED", "UNSUPPORTED_FEATURE")
        for call in (load(served, "none"), unload(served, "none")):
            assert (await failure(all_of(call))).reason == "UNKNOWN_LLM"
