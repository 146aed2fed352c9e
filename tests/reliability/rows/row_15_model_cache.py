"""Rows 15, 16 and 17: the cache of models.

Pass mark: a server that is killed 200 times during PullModel, ClearCache and SetConfig leaves each model whole,
partial and listed as that, or gone; it answers again within five seconds, and by then no process is left behind.
1,000 operations of ClearCache, Generate and ListCachedModels side by side crash nothing, and the list matches the
disk. Sixty names that would lead out of the cache, and links, touch nothing outside.
Load: 200 starts, five minutes; 1,000 calls; 240 calls.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

from abstractllm_api.v1 import config_pb2, config_pb2_grpc, generation_pb2, models_pb2, models_pb2_grpc
from tests.fake_hub import FakeHub, model_files, serving_hub
from tests.reliability.calls import DEMO, Stub, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, descendants_left, echo, free_port, serving

_MODEL = "org/model"
_LONGEST_END = 5.0
"""Seconds after which a process whose server was killed has ended."""
_WEIGHTS = model_files()["model.safetensors"]
_NAMES = [
    *""". .. / // ./ ../ ../.. ../victim ../models--org--victim ../outside/models--org--victim org/../../victim
    org/../one org/./one org//one org/one/ /org/one /etc /etc/passwd ~ ~root $HOME models--org--one ./models--org--one
    --org--one org--one org--one/.. org/absent org/* org/? org/[o]ne {org/one} org\\one ..\\victim C:\\ file:///etc
    .locks .removed-x datasets--org--data blobs %2e%2e%2fvictim org%2fone ..%2fvictim ....//victim
    org/..%c0%af..%c0%afvictim /proc/self/environ /dev/zero org/linked ../../../../../../etc/shadow""".split(),
    " ",
    "org/one ",
    "org/one\n",
    "org/one\0/../../victim",
    "x" * 5_000,
]
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


async def measure(setting: Setting) -> Figures:
    """Kills servers at their work, mixes operations, and asks for names that lead elsewhere."""
    figures = setting.figures()
    with serving_hub() as hub:
        hub.add(_MODEL)
        await _kills(figures, setting, hub)
    await _mixture(figures, setting)
    await _names(figures, setting.folder / "names")
    return figures


def _local(cache: Path, model: str = _MODEL) -> dict[str, Any]:
    return echo() | {"local": {"provider": "huggingface", "model": model, "cache_dir": str(cache)}}


async def _kills(figures: Figures, setting: Setting, hub: FakeHub) -> None:
    source = random.Random(1)
    cache, kills = setting.folder / "cache", setting.load(200, 4)
    hub.pace = 2_000_000
    slowest, slowest_end, left, half = 0.0, 0.0, 0, list[str]()
    for number in range(kills):
        began = time.monotonic()
        async with serving(
            setting.folder / "kills", _local(cache), preload=["echo"], variables={"HF_ENDPOINT": hub.url}
        ) as server:
            slowest = max(slowest, time.monotonic() - began)
            half += [f"{number}: {fault}" for fault in await _halves(server, cache)]
            work = asyncio.create_task(_work(server, number))
            await asyncio.sleep(source.uniform(0, 0.5))
            children = server.children
            server.process.kill()
            server.process.wait()
            killed = time.monotonic()
            await asyncio.gather(work, return_exceptions=True)
            # One that has just begun imports what it needs for half a second, and only then reads that it is alone.
            while descendants_left(children) and time.monotonic() - killed < _LONGEST_END:
                await asyncio.sleep(0.01)
            slowest_end = max(slowest_end, time.monotonic() - killed if children else 0)
            left += len(descendants_left(children))
    figures.equal(f"{kills} kills: models left half", half, [])
    figures.equal(f"processes left {_LONGEST_END:g} seconds later", left, 0)
    figures.at_most("the slowest end of a process whose server was killed", slowest_end, _LONGEST_END, "s")
    figures.at_most("the slowest start", slowest, 5, "s")


async def _work(server: ServerProcess, number: int) -> None:
    async with server.channel() as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        config = config_pb2_grpc.ConfigServiceStub(channel)
        while True:
            match number % 3:
                case 0 | 1:
                    async for _ in models.PullModel(models_pb2.PullModelRequest(llm="local", model=_MODEL)):
                        pass
                    await models.ClearCache(models_pb2.ClearCacheRequest(llm="local", model=_MODEL))
                case _:
                    changed = config_pb2.LlmConfig(system_prompt=str(number))
                    await config.SetConfig(config_pb2.SetConfigRequest(llm="local", config=changed))


async def _halves(server: ServerProcess, cache: Path) -> list[str]:
    """Returns the faults of the list: a model that is said to be whole and is not."""
    async with server.channel() as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        listed = (await stub.ListCachedModels(models_pb2.ListCachedModelsRequest(llm="local"), timeout=20)).models
    faults = []
    for model in listed:
        weights = list(cache.glob("models--*/snapshots/*/model.safetensors"))
        is_whole = any(path.read_bytes() == _WEIGHTS for path in weights)
        if not model.partial and not is_whole:
            faults.append(model.name)
    return faults


def add_model(cache: Path, name: str) -> Path:
    """Puts a small model into a cache, as a download leaves it."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / f"{0:040x}"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "blobs" / "weights").write_bytes(b"w" * 1000)
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    (snapshot / "config.json").write_text("{}", "ascii")
    (folder / "refs" / "main").write_text(snapshot.name, "ascii")
    return folder


async def _mixture(figures: Figures, setting: Setting) -> None:
    source = random.Random(2)
    cache = setting.folder / "mixed"
    names = [f"org/model{number}" for number in range(20)]
    for name in names:
        add_model(cache, name)
    llms = {"local": DEMO | {"cache_dir": str(cache)}} if setting.full else _local(cache) | echo()
    async with serving(setting.folder / "mixture", llms, preload=None if setting.full else ["echo"]) as server:
        ends = []
        async with server.channel() as channel:
            models, generation = models_pb2_grpc.ModelServiceStub(channel), Stub(channel)

            async def operate() -> None:
                for _ in range(setting.load(1_000, 160) // 16):
                    name = source.choice(names)
                    match source.randrange(4):
                        case 0:
                            call = generation.Generate(request(llm="" if setting.full else "echo", max_tokens=2))
                        case 1:
                            call = models.ClearCache(models_pb2.ClearCacheRequest(llm="local", model=name))
                        case 2:
                            call = models.ListCachedModels(models_pb2.ListCachedModelsRequest(llm="local"))
                        case _:
                            if not (cache / f"models--{name.replace('/', '--')}").exists():
                                add_model(cache, name)
                            continue
                    ends.append(await unary(call))

            await asyncio.gather(*(operate() for _ in range(16)))
            listed = (await models.ListCachedModels(models_pb2.ListCachedModelsRequest(llm="local"))).models
        # A model that another call removes at that moment is in use.
        expected = ("OK", "NOT_FOUND MODEL_NOT_FOUND", "FAILED_PRECONDITION MODEL_IN_USE")
        bad = {end: times for end, times in tally(ends).items() if end not in expected}
        figures.equal(f"{len(ends)} operations mixed: ends other than OK, MODEL_NOT_FOUND and MODEL_IN_USE", bad, {})
        on_disk = sorted(path.name.removeprefix("models--").replace("--", "/") for path in cache.glob("models--*"))
        figures.holds("the list matches the disk", sorted(model.name for model in listed) == on_disk, len(on_disk))
        figures.equal("the server", server.process.poll(), None)


async def _names(figures: Figures, folder: Path) -> None:
    cache, outside = folder / "cache", folder / "outside"
    add_model(cache, "org/one")
    victim = add_model(outside, "org/victim")
    shutil.copytree(victim, folder / "victim", symlinks=True)
    (cache / "models--org--linked").symlink_to(victim)
    before = sorted(folder.rglob("*"))
    bad: list[str] = []
    nowhere = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    async with serving(
        folder.with_name("names-server"), _local(cache, "org/one"), preload=["echo"], variables=nowhere
    ) as server:
        async with server.channel() as channel:
            models, generation = models_pb2_grpc.ModelServiceStub(channel), Stub(channel)
            for name in _NAMES:
                parameters = generation_pb2.GenerationParameters(model=name)
                generate = generation_pb2.GenerateRequest(llm="local", prompt="x", parameters=parameters)
                for call in (
                    models.ClearCache(models_pb2.ClearCacheRequest(llm="local", model=name), timeout=20),
                    models.PullModel(models_pb2.PullModelRequest(llm="local", model=name), timeout=20).read(),
                    generation.Generate(generate, timeout=20),
                    models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm=name), timeout=20),
                ):
                    end = await unary(call)
                    # A name that a hub may have is looked for there, and this one cannot be reached.
                    unreachable = {"UNAVAILABLE"} if _REPOSITORY.fullmatch(name) else set()
                    if end.code not in {"NOT_FOUND", "INVALID_ARGUMENT"} | unreachable:
                        bad.append(f"{name!r}: {end}")
    figures.equal(f"{len(_NAMES)} names by four methods: other than refused", bad, [])
    figures.equal("files touched", sorted(set(folder.rglob("*")) ^ set(before)), [])


ROW = Row(
    numbers=(15, 16, 17),
    title="kill -9 during PullModel, ClearCache, SetConfig; mixed operations; names that lead out of the cache",
    pass_mark="whole or gone, restart under 5 s, no process left; list matches disk; nothing outside touched",
    measure=measure,
    quick=False,
    seconds=900,
)
