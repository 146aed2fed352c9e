"""PullModel and the cache behind it: over the wire, through the client, and as a command."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc import aio

from abstractllm import create_llm
from abstractllm.providers.huggingface.hub.downloads import downloads
from abstractllm_api.v1 import models_pb2 as pb
from abstractllm_client import AsyncRemoteLLM, PullProgress
from tests.fake_hub import TOKEN, FakeHub, Refusal, model_files
from tests.pull_support import MODEL, snapshot, wanted
from tests.server.support import HANG, Serving, collect, failure, serving
from tests.unit.cli.support import Terminal
from tests.waiting import until, wait_until

COMMAND = [sys.executable, "-m", "abstractllm_cli"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache"


def local(root: Path, **config: Any) -> dict[str, Any]:
    return {"local": create_llm("huggingface", model=MODEL, cache_dir=str(root), **config)}


def pulling(served: Serving, **fields: Any) -> "aio.UnaryStreamCall[Any, pb.PullModelResponse]":
    return served.models.PullModel(pb.PullModelRequest(**fields), timeout=3 * HANG)


async def weights_have_come(call: "aio.UnaryStreamCall[Any, pb.PullModelResponse]") -> None:
    """Reads until some of the weights are there."""
    async with asyncio.timeout(3 * HANG):
        async for report in call:
            if report.file == "model.safetensors" and report.file_bytes_done:
                return


async def listed(served: Serving) -> dict[str, bool]:
    answer = await served.models.ListCachedModels(pb.ListCachedModelsRequest(llm="local"))
    return {model.name: model.partial for model in answer.models}


async def test_a_download_is_told_over_the_wire(forked: FakeHub, root: Path) -> None:
    commit = forked.add(MODEL)
    async with serving(local(root), preload=()) as served:
        *reports, last = [report async for report in pulling(served, llm="local", model=MODEL)]
        size = sum(map(len, wanted(model_files()).values()))
        assert (last.file, last.bytes_done, last.bytes_total, last.done) == ("", size, size, True)
        assert {report.file for report in reports} == set(wanted(model_files()))
        assert {report.file: report.file_bytes_total for report in reports} == {
            name: len(content) for name, content in wanted(model_files()).items()
        }
        assert not any(report.done for report in reports)
        assert not reports[0].HasField("bytes_total") and reports[-1].bytes_total == size
        assert await listed(served) == {MODEL: False}
    assert snapshot(root, commit) == wanted(model_files())


async def test_the_clients_share_it_and_the_last_one_leaving_stops_it(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 100_000
    async with serving(local(root), preload=()) as served:
        calls = [pulling(served) for _ in range(3)]
        await asyncio.gather(*map(weights_have_come, calls))
        assert len(hub.paths("GET", "storage")) == 2  # the tokenizer and the weights, once
        for call in calls[:2]:
            call.cancel()
        await weights_have_come(calls[2])
        assert len(downloads.running) == 1
        calls[2].cancel()
        await until(lambda: not downloads.running and not hub.open)
        assert await listed(served) == {MODEL: True}
        hub.pace = None
        async with AsyncRemoteLLM(served.server.address, "local") as llm:
            last = [report async for report in llm.pull_model()][-1]
        assert last == PullProgress("", 0, None, last.bytes_done, last.bytes_done, True)
        assert await listed(served) == {MODEL: False}


async def test_a_failure_ends_the_stream_with_its_status(forked: FakeHub, root: Path) -> None:
    forked.add(MODEL)
    async with serving(local(root), preload=()) as served:
        for refusal, code, reason in [
            (Refusal(401), "FAILED_PRECONDITION", "PROVIDER_CREDENTIALS"),
            (Refusal(404), "NOT_FOUND", "MODEL_NOT_FOUND"),
            (Refusal(429, headers={"Retry-After": "70"}), "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
            (Refusal(503), "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
        ]:
            forked.refuse = lambda request, refusal=refusal: refusal  # type: ignore[misc]
            error = await failure(collect(pulling(served)))
            assert (error.code.name, error.reason) == (code, reason)
            assert error.metadata["upstream_status"] == str(refusal.status)
            assert error.retry_delays == ([70.0] if refusal.status == 429 else error.retry_delays)
            assert TOKEN not in error.message + str(error.metadata)


async def test_only_a_listed_model_is_downloaded(hub: FakeHub, root: Path) -> None:
    async with serving(local(root), preload=()) as served:
        error = await failure(collect(pulling(served, model="org/other")))
        assert (error.code.name, error.reason, error.fields) == ("NOT_FOUND", "MODEL_NOT_FOUND", ["model"])
        assert error.metadata["limit"] == MODEL
    assert hub.requests == []


async def test_an_llm_without_a_cache_is_unimplemented(served: Serving) -> None:
    error = await failure(collect(pulling(served)))
    assert (error.code.name, error.reason) == ("UNIMPLEMENTED", "UNSUPPORTED_FEATURE")


async def test_a_model_that_is_downloaded_is_not_deleted(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 100_000
    async with serving(local(root), preload=()) as served:
        call = pulling(served)
        await weights_have_come(call)
        for target in ({"model": MODEL}, {"all": pb.AllModels()}):
            for dry_run in (False, True):
                message = pb.ClearCacheRequest(llm="local", dry_run=dry_run, **target)
                error = await failure(served.models.ClearCache(message))
                assert (error.code.name, error.reason) == ("FAILED_PRECONDITION", "MODEL_IN_USE")
        call.cancel()
        await until(lambda: not downloads.running and not hub.open)
        async with asyncio.timeout(HANG):
            while True:  # the process that downloaded may still be on its way out
                try:
                    cleared = await served.models.ClearCache(pb.ClearCacheRequest(llm="local", model=MODEL))
                    break
                except aio.AioRpcError:
                    await asyncio.sleep(0.02)
        assert list(cleared.removed) == [MODEL]
        assert await listed(served) == {}


# As a command.


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=120, text=True)


@pytest.fixture(params=["in process", "on a server"])
def where(request: pytest.FixtureRequest, hub: FakeHub, root: Path, tmp_path: Path) -> Any:
    """The options of a command for this cache, in the command's own process and on a server."""
    if request.param == "in process":
        yield ["--cache-dir", str(root)]
        return
    path = tmp_path / "llms.yaml"
    path.write_text(f"preload: []\nllms: {{local: {{provider: huggingface, model: {MODEL}, cache_dir: {root}}}}}\n")
    command = [*COMMAND, "serve", "--port", "0", "--config", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listening on" in line)
        yield ["--address", line.split("listening on ")[1].split()[0]]
    finally:
        process.kill()
        process.communicate()


def test_the_command_downloads_lists_and_deletes(where: list[str], hub: FakeHub, root: Path) -> None:
    commit = hub.add(MODEL)
    done = run("models", "pull", MODEL, *where, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *reports, last = map(json.loads, done.stdout.splitlines())
    size = sum(map(len, wanted(model_files()).values()))
    assert last == {
        "file": "",
        "file_bytes_done": 0,
        "file_bytes_total": None,
        "bytes_done": size,
        "bytes_total": size,
        "done": True,
    }
    assert {report["file"] for report in reports} == set(wanted(model_files()))
    assert snapshot(root, commit) == wanted(model_files())
    again = run("models", "pull", MODEL, *where)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "the model is whole: 298.0 KiB\n")
    (model,) = json.loads(run("models", "list", *where, "--json").stdout)["models"]
    assert (model["name"], model["revisions"], model["partial"]) == (MODEL, [commit], False)
    cleared = json.loads(run("models", "clear", MODEL, *where, "--json", "--yes").stdout)
    assert (cleared["removed"], cleared["freed_bytes"]) == ([MODEL], model["size_bytes"])


def test_ctrl_c_stops_the_download(where: list[str], hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 50_000
    process = subprocess.Popen(
        [*COMMAND, "models", "pull", MODEL, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: hub.open and hub.sent > 20_000)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "")
        wait_until(lambda: not hub.open)
    finally:
        process.kill()
        process.communicate()


def test_a_failed_download_is_told_by_the_command(where: list[str], hub: FakeHub) -> None:
    done = run("models", "pull", MODEL, *where)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: MODEL_NOT_FOUND: model {MODEL}: ")


def test_the_model_must_be_named_where_nothing_is_configured() -> None:
    done = run("models", "pull")
    assert done.returncode == 2 and "name the model to download" in done.stderr


def test_a_killed_server_leaves_no_download_behind(hub: FakeHub, root: Path, tmp_path: Path) -> None:
    commit = hub.add(MODEL)
    hub.pace = 50_000
    process = subprocess.Popen([*COMMAND, "models", "pull", MODEL, "--cache-dir", str(root)])
    try:
        wait_until(lambda: hub.open and hub.sent > 20_000)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    hub.pace = None
    assert run("models", "pull", MODEL, "--cache-dir", str(root)).returncode == 0
    assert snapshot(root, commit) == wanted(model_files())


def test_at_a_terminal_bars_show_how_far_it_is(hub: FakeHub, root: Path) -> None:
    hub.add(MODEL)
    hub.pace = 150_000
    with Terminal("models", "pull", MODEL, "--cache-dir", str(root)) as terminal:
        shown = terminal.rest()
    assert "Downloading" in shown and "model.safetensors" in shown and "━" in shown and "B/s" in shown
    assert shown.rstrip().endswith("the model is whole: 298.0 KiB")
