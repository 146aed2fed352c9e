"""Downloads, listings and deletions at the same time, and kills at any moment: a model is whole, partial, or gone."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from abstractllm import ModelInUseError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.hub import cache
from abstractllm.providers.huggingface.hub.model_cache import clear_models
from tests.fake_hub import FakeHub, model_files
from tests.pull_support import HANG, MODEL, downloading_processes, listed, llm_of, pull, snapshot, wanted
from tests.waiting import wait_until

SIZE = 400_000
KILLS = 30

PULL = """
import sys
from abstractllm.providers.huggingface.hub.downloader.download import Download
from abstractllm.providers.huggingface.hub.downloader.messages import Pull
settings = Pull(model=sys.argv[1], revision="main", cache_dir=sys.argv[2], code=False, local_files_only=False)
print(Download(settings, lambda report: None).run())
"""
# Importing takes as long as everything else: a process that has imported is forked for each kill.
PULL_AND_KILL = """
import os, sys, time
from abstractllm.providers.huggingface.hub.downloader.download import Download
from abstractllm.providers.huggingface.hub.downloader.messages import Pull
settings = Pull(model=sys.argv[1], revision="main", cache_dir=sys.argv[2], code=False, local_files_only=False)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            Download(settings, lambda report: None).run()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    time.sleep(float(line))
    try:
        os.kill(child, 9)
    except ProcessLookupError:
        pass
    print(os.waitpid(child, 0)[1], flush=True)
"""
CLEAR = """
import shutil, sys
from pathlib import Path
from abstractllm.providers.huggingface.hub import cache
source, root = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while True:
    if not (root / source.name).exists():
        shutil.copytree(source, root / "copy", symlinks=True)
        (root / "copy").rename(root / source.name)
    assert cache.clear(str(root), "org/model")[0] == ["org/model"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache"


def is_true_to_its_word(root: Path, commit: str, files: dict[str, bytes]) -> bool:
    """Checks that what is listed as whole is whole; tells whether it is.

    Raises:
        AssertionError: If it is not.
    """
    partial = listed(root).get(MODEL)
    if partial is False:
        assert snapshot(root, commit) == wanted(files)
    return partial is False


def test_a_download_killed_at_any_moment_is_gone_on_with(hub: FakeHub, root: Path) -> None:
    files = model_files(weights=SIZE)
    commit = hub.add(MODEL, files)
    chance = random.Random(7)
    ends: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", PULL_AND_KILL, MODEL, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(KILLS):
            hub.pace = chance.choice([1_000_000, 4_000_000, None])
            process.stdin.write(f"{chance.uniform(0, 0.4)}\n")
            process.stdin.flush()
            ends.append(int(process.stdout.readline()))
            whole = is_true_to_its_word(root, commit, files)
            if whole and chance.random() < 0.7:
                assert HuggingFaceProvider.clear_model_cache(MODEL, str(root)).removed == (MODEL,)
        process.stdin.close()
    assert set(ends) <= {0, 9} and ends.count(9) > KILLS // 4, ends
    hub.pace = None
    asyncio.run(_pulled(root))
    assert is_true_to_its_word(root, commit, files)
    assert not list(root.glob("models--org--model/blobs/*.incomplete"))
    assert HuggingFaceProvider.clear_model_cache(cache_dir=str(root)).removed == (MODEL,)
    assert [path.name for path in root.iterdir()] == ["CACHEDIR.TAG"]


async def _pulled(root: Path) -> None:
    async with llm_of(root) as llm:
        await pull(llm)


def test_a_deletion_killed_at_any_moment_leaves_a_model_whole_or_gone(hub: FakeHub, root: Path, tmp_path: Path) -> None:
    commit = hub.add(MODEL)
    asyncio.run(_pulled(tmp_path / "source"))
    source = tmp_path / "source" / "models--org--model"
    chance = random.Random(11)
    root.mkdir()
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", CLEAR, str(source), str(root)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.1))
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -9
        with suppress(FileNotFoundError):
            subprocess.run(["rm", "-rf", str(root / "copy")], check=True)  # of the test itself
        if MODEL in listed(root):
            assert is_true_to_its_word(root, commit, model_files())
        assert not list(root.glob(".removed-*"))


def test_processes_that_want_the_same_share_its_files(hub: FakeHub, root: Path) -> None:
    files = model_files(weights=SIZE, shards=4)
    commit = hub.add(MODEL, files)
    hub.pace = 200_000
    processes = [
        subprocess.Popen([sys.executable, "-c", PULL, MODEL, str(root)], stdout=subprocess.PIPE) for _ in range(3)
    ]
    try:
        sizes = {process.communicate(timeout=HANG)[0] for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    needed = wanted(files, [name for name in files if name.startswith("model") and "safetensors" in name])
    assert sizes == {b"%d\n" % sum(map(len, needed.values()))}
    assert snapshot(root, commit) == needed
    assert hub.sent == sum(map(len, needed.values()))
    assert listed(root) == {MODEL: False}


def test_what_plain_http_cannot_give_is_left_to_the_hubs_library(hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    limited = PULL.replace(
        "settings =",
        "import abstractllm.providers.huggingface.hub.downloader.download as download\n"
        "download._HTTP_LIMIT = 100_000\nsettings =",
    )
    done = subprocess.run([sys.executable, "-c", limited, MODEL, str(root)], capture_output=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert snapshot(root, commit) == wanted(model_files())
    assert listed(root) == {MODEL: False}
    # The library's own flag for its downloads.
    assert [request.headers.get("x-hf-download-counter") for request in hub.requests if "storage" in request.path][-1]


async def test_two_hundred_operations_at_the_same_time(hub: FakeHub, root: Path) -> None:
    """Three models are downloaded, left, listed and deleted; in the end the list says what is on the disk."""
    models = [f"org/model-{number}" for number in range(3)]
    files = model_files(weights=50_000)
    commits = {model: hub.add(model, files) for model in models}
    hub.pace = 200_000
    chance = random.Random(3)
    outcomes: Counter[str] = Counter()

    def list_or_clear(model: str, action: str) -> None:
        if action == "list":
            cached = HuggingFaceProvider.list_cached_models(str(root))
            assert {one.name for one in cached} <= set(models)
            outcomes["list"] += 1
            return
        try:
            clear_models(str(root), model if action == "clear" else None)
            outcomes["cleared"] += 1
        except (ModelInUseError, ModelNotFoundError) as error:
            outcomes[type(error).__name__] += 1

    async def download(model: str, leave: bool) -> None:
        async with llm_of(root, model=model) as llm, aclosing(llm.pull()) as reports:
            async for report in reports:
                if leave:
                    outcomes["left"] += 1
                    return
                if report.done:
                    outcomes["downloaded"] += 1

    async def act(number: int) -> None:
        await asyncio.sleep(number * 0.1)
        model = chance.choice(models)
        action = chance.choices(["pull", "leave", "list", "clear", "all"], [12, 8, 40, 37, 3])[0]
        if action in ("pull", "leave"):
            await download(model, action == "leave")
        else:
            await asyncio.get_running_loop().run_in_executor(threads, list_or_clear, model, action)

    with ThreadPoolExecutor(8) as threads:
        async with asyncio.timeout(2 * HANG):
            await asyncio.gather(*(act(number) for number in range(200)))
    assert {"left", "downloaded", "list", "cleared", "ModelInUseError", "ModelNotFoundError"} == set(outcomes), outcomes
    agrees_with_the_disk(root, commits, files)


def agrees_with_the_disk(root: Path, commits: dict[str, str], files: dict[str, bytes]) -> None:
    wait_until(lambda: not downloading_processes())
    on_disk = {path.name for path in root.glob("models--*")}
    cached = HuggingFaceProvider.list_cached_models(str(root))
    assert {f"models--{model.name.replace('/', '--')}" for model in cached} == on_disk
    for model in cached:
        if not model.partial:
            assert snapshot(root, commits[model.name], model.name) == wanted(files)
    assert not list(root.glob(".removed-*"))
    cache.clear(str(root), None)
    assert [path.name for path in root.iterdir()] == ["CACHEDIR.TAG"]
