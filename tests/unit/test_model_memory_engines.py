"""Several local LLMs that share memory, with real models.

Where a process is killed, or left over, the engines are processes; elsewhere the same worker answers in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from abstractllm import LLMRegistry
from abstractllm._core import model_memory
from abstractllm.errors import EngineCrashedError, GenerationTimeoutError, ModelLoadError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceConfig, HuggingFaceProvider
from abstractllm.providers.huggingface.engine.memory_estimate import expected_bytes
from abstractllm.types import Event, LlmState, TextDelta
from tests.cases.local.in_process_engine import engines_in_process
from tests.unit.tiny_models import build
from tests.waiting import until

HANG = 100.0
"""Seconds after which a test gives up waiting."""
ENDLESS = {1: -100.0, 3: -100.0}
"""Forbids the end tokens."""
CACHE = 2**20


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models whose answers last for minutes, if nothing ends them."""
    folder = tmp_path_factory.mktemp("models")
    return [build(folder / str(n), "llama", seed=n, max_position_embeddings=100_000) for n in range(2)]


def local(directory: Path, **config: Any) -> dict[str, Any]:
    return {
        "provider": "huggingface",
        "model": str(directory),
        "temperature": 0,
        "threads": 1,
        "max_batch_size": 4,
        "kv_cache_bytes": CACHE,
    } | config


Registries = Callable[..., LLMRegistry]


@pytest.fixture
async def registries() -> AsyncIterator[Registries]:
    """Makes registries from lines and limits; closed with the test."""
    made: list[LLMRegistry] = []

    def make(lines: dict[str, Any], **limits: int) -> LLMRegistry:
        made.append(LLMRegistry.from_config(lines, **limits))
        return made[-1]

    yield make
    for registry in made:
        await asyncio.wait_for(registry.close(), HANG)


@pytest.fixture
def in_process() -> Iterator[None]:
    """Lets engines take no process of their own; their registries are closed before."""
    with engines_in_process():
        yield


def local_llm(registry: LLMRegistry, name: str) -> HuggingFaceProvider:
    llm = registry[name]
    assert isinstance(llm, HuggingFaceProvider)
    return llm


async def first_piece(events: AsyncGenerator[Event, None]) -> None:
    async for event in events:
        if isinstance(event, TextDelta):
            return


async def test_one_place_is_shared_by_two_that_always_have_requests(
    in_process: None, registries: Registries, directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_memory, "_PATIENCE", 0.5)
    monkeypatch.setattr(model_memory, "_SHORTEST_TURN", 0.5)
    monkeypatch.setattr(model_memory, "_TURN_PER_LOADING", 0.0)
    lines = {"a": local(directories[0]), "b": local(directories[1])}
    registry = registries(lines, max_loaded=1)
    a, b = local_llm(registry, "a"), local_llm(registry, "b")
    texts = {name: await registry[name].generate_async("hello", max_tokens=4) for name in "ab"}
    assert (a.state[0], b.state[0]) == (LlmState.UNLOADED, LlmState.READY)  # the idle one made way

    turns: list[str] = []
    done = asyncio.Event()

    async def ask(name: str) -> None:
        while not done.is_set():
            assert await registry[name].generate_async("hello", max_tokens=4) == texts[name]
            if turns[-1:] != [name]:
                turns.append(name)

    loaded_at_once: list[int] = []
    for llm in (a, b):
        llm.on_change(lambda: loaded_at_once.append(sum(one.state[0] is LlmState.READY for one in (a, b))))
    tasks = [asyncio.create_task(ask(name)) for name in "aabb"]
    await until(lambda: len(turns) >= 3 or any(task.done() for task in tasks))
    done.set()
    await asyncio.wait_for(asyncio.gather(*tasks), HANG)
    assert turns[:3] in (list("aba"), list("bab"))
    assert max(loaded_at_once) == 1
    assert [info.memory_bytes is not None for info in registry.list()].count(True) == 1


async def test_request_waits_for_a_place_until_its_deadline_and_leaves_the_others_alone(
    in_process: None, registries: Registries, directories: list[Path]
) -> None:
    lines = {"a": local(directories[0]), "b": local(directories[1])}
    registry = registries(lines, max_loaded=1)
    a, b = local_llm(registry, "a"), local_llm(registry, "b")
    async with aclosing(a.stream_async("hello", logit_bias=ENDLESS)) as stream:
        await asyncio.wait_for(first_piece(stream), HANG)
        with pytest.raises(GenerationTimeoutError):
            await b.generate_async("hello", timeout=0.5)
        assert b.state == (LlmState.LOADING, "waits until there is room for it beside the models that are loaded")
        assert b.engine_pid is None
        async for _ in b.unload():
            pass
        assert b.state[0] is LlmState.UNLOADED
        await asyncio.wait_for(first_piece(stream), HANG)


async def test_budget_refuses_what_never_fits_and_unloads_for_what_does(
    in_process: None, registries: Registries, directories: list[Path]
) -> None:
    lines = {name: local(directory) for name, directory in zip("ab", directories, strict=True)}
    del lines["a"]["provider"]
    need = expected_bytes(HuggingFaceConfig.parse(lines["a"]).load_settings())
    lines["a"]["provider"] = "huggingface"
    lines["giant"] = local(directories[0], kv_cache_bytes="1GiB")
    registry = registries(lines, memory_budget=round(1.5 * need))
    a, b = local_llm(registry, "a"), local_llm(registry, "b")
    await a.load()
    # The estimate is what the files and the configuration say.
    assert a.memory_bytes == pytest.approx(need, rel=0.01)
    with pytest.raises(ModelLoadError, match=r"needs 1 GiB.*memory_budget is ") as failure:
        await local_llm(registry, "giant").generate_async("hello")
    assert failure.value.limit == round(1.5 * need)
    assert a.state[0] is LlmState.READY
    await b.load()
    assert (a.state[0], b.state[0]) == (LlmState.UNLOADED, LlmState.READY)


async def test_models_of_one_llm_each_have_an_engine(
    in_process: None, registries: Registries, directories: list[Path]
) -> None:
    names = [str(directory) for directory in directories]
    registry = registries({"a": local(directories[0], models=[names[1]])}, max_loaded=2)
    llm = local_llm(registry, "a")
    one = await llm.complete_async("hello", max_tokens=6)
    two = await llm.complete_async("hello", max_tokens=6, model=names[1])
    assert [one.model, two.model] == names
    assert one.text != two.text
    assert await llm.generate_async("hello", max_tokens=6) == one.text
    assert await llm.count_tokens_async("hello", model=names[1]) == one.usage.input_tokens
    assert (await llm.get_capabilities_async(names[1])).device == "cpu"
    engines = llm._pool.engines
    assert sorted(engine.name for engine in engines) == names
    assert llm.memory_bytes == sum(e.loaded.memory_bytes + e.loaded.cache_bytes for e in engines if e.loaded)
    with pytest.raises(ModelNotFoundError, match="offers only"):
        await llm.generate_async("hello", model="other")
    reports = [report async for report in llm.unload()]
    assert reports[-1].state is LlmState.UNLOADED
    assert [engine.pid for engine in engines] == [None, None]


async def test_killed_engine_leaves_the_other_llms_alone_and_comes_back(
    registries: Registries, directories: list[Path]
) -> None:
    registry = registries({"a": local(directories[0]), "b": local(directories[1])}, max_loaded=2)
    a, b = local_llm(registry, "a"), local_llm(registry, "b")
    expected = await b.generate_async("hello", max_tokens=1000, logit_bias=ENDLESS)
    pieces: list[str] = []

    async def listen() -> None:
        stream = await b.generate_async("hello", stream=True, max_tokens=1000, logit_bias=ENDLESS)
        async for piece in stream:
            pieces.append(piece)  # noqa: PERF401 # they are counted meanwhile

    async with aclosing(a.stream_async("hello", logit_bias=ENDLESS)) as stream:
        await asyncio.wait_for(first_piece(stream), HANG)
        listening = asyncio.create_task(listen())
        await until(lambda: len(pieces) > 3)
        pid = a.engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError) as failure:
            await asyncio.wait_for(first_piece_of_all(stream), HANG)
        assert failure.value.retry_after
        assert not listening.done()
    await until(lambda: a.state[0] is LlmState.READY)
    assert a.engine_pid not in (None, pid)
    await asyncio.wait_for(listening, HANG)
    assert "".join(pieces) == expected


async def first_piece_of_all(events: AsyncGenerator[Event, None]) -> None:
    async for _ in events:
        pass


async def test_loads_and_unloads_leave_no_thread_descriptor_or_process(
    registries: Registries, directories: list[Path]
) -> None:
    registry = registries({"a": local(directories[0], keep_alive="1h"), "b": local(directories[1])})
    a, b = local_llm(registry, "a"), local_llm(registry, "b")
    this = psutil.Process()
    there_before = set(this.children(recursive=True))

    def resources() -> tuple[int, int, int]:
        return threading.active_count(), this.num_fds(), len({*this.children(recursive=True)} - there_before)

    async def cycle() -> None:
        await asyncio.gather(a.load(), b.generate_async("hello", max_tokens=2))
        async with aclosing(a.stream_async("hello", logit_bias=ENDLESS)) as stream:
            await asyncio.wait_for(first_piece(stream), HANG)
        async for _ in a.unload(force=True):
            pass
        async for _ in b.unload():
            pass

    await cycle()
    start = resources()
    await cycle()
    await until(lambda: all(now <= before for now, before in zip(resources(), start, strict=True)))
    assert start[2] == 0


def settings(directory: Path, **config: Any) -> Any:
    return HuggingFaceConfig.parse(
        {"model": str(directory), "max_batch_size": 1, "device_map": "cpu"} | config
    ).load_settings()


def weights(directory: Path) -> dict[str, Any]:
    file = (directory / "model.safetensors").read_bytes()
    header: dict[str, Any] = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def test_expected_bytes_are_those_of_the_files_in_the_precision_asked_for(
    directories: list[Path], tmp_path: Path
) -> None:
    directory = directories[0]
    tensors = weights(directory)
    in_file = sum(end - begin for begin, end in (tensor["data_offsets"] for tensor in tensors.values()))
    assert {tensor["dtype"] for tensor in tensors.values()} == {"F32"}
    assert expected_bytes(settings(directory, dtype="float32")) == in_file
    assert expected_bytes(settings(directory, dtype="bfloat16")) == in_file // 2
    assert (
        expected_bytes(settings(directory, dtype="float32", max_batch_size=2, kv_cache_bytes="3MiB"))
        == in_file + 3 * 2**20
    )
    assert expected_bytes(settings(directory, dtype="float32", max_batch_size=None)) == in_file + 512 * 2**20
    quantized = {
        form: expected_bytes(settings(directory, dtype="float16", quantization=form)) for form in ("int8", "int4")
    }
    assert quantized["int4"] < quantized["int8"] < in_file // 2
    assert expected_bytes(settings(tmp_path)) == 0

    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("abc", "ascii")
    snapshot.mkdir(parents=True)
    (snapshot / "model-1.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    (snapshot / "model-2.safetensors").write_bytes(b"\xff" * 8)
    (snapshot / "unused.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    index = {"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors", "z": "absent.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index), "ascii")
    hub = HuggingFaceConfig.parse(
        {"model": "org/name", "cache_dir": str(tmp_path), "max_batch_size": 1, "dtype": "float32", "device_map": "cpu"}
    )
    assert expected_bytes(hub.load_settings()) == in_file
    assert (
        expected_bytes(
            HuggingFaceConfig.parse(
                {"model": "org/none", "cache_dir": str(tmp_path), "max_batch_size": 1}
            ).load_settings()
        )
        == 0
    )
