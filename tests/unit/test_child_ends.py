"""The ends of child processes that are stopped: none outlives its parent, none is waited for without a bound."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from abstractllm import create_llm
from abstractllm.errors import ProviderUnavailableError
from abstractllm.providers.huggingface.hub import downloads
from abstractllm.providers.huggingface.hub.downloader.messages import FromDownloader
from abstractllm.providers.huggingface.protocol.child_process import ChildProcess
from abstractllm.providers.huggingface.protocol.watchdog import Patience, Watchdog
from abstractllm.types import JsonSchemaFormat
from tests.fake_hub import FakeHub, model_files
from tests.pull_support import HANG, MODEL, begun, downloading_processes, llm_of
from tests.waiting import wait_until

DOWNLOADER = "abstractllm.providers.huggingface.hub.downloader"

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped process with its parent")


async def test_download_whose_process_is_stopped_ends(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "Watchdog", partial(Watchdog, patience=lambda: Patience(heartbeat=4)))
    hub.add(MODEL, model_files(weights=2_000_000))
    hub.pace = 100_000
    async with llm_of(tmp_path) as llm, asyncio.timeout(HANG), aclosing(llm.pull()) as reports:
        await begun(reports)
        (process,) = downloading_processes()
        process.suspend()
        with pytest.raises(ProviderUnavailableError, match="gave no sign of life within 4 s and was ended"):
            async for _ in reports:
                pass
    wait_until(lambda: not process.is_running())


@linux
def test_stopped_sandbox_does_not_outlive_an_engine_that_is_killed() -> None:
    with create_llm("huggingface", model="demo", threads=1) as llm:
        schema = JsonSchemaFormat('{"type": "object", "properties": {"a": {"type": "integer"}}}')
        llm.generate("x", max_tokens=2, response_format=schema)  # a grammar is tried in a sandbox first
        (sandbox,) = psutil.Process(llm.engine_pid).children()
        sandbox.suspend()
        os.kill(llm.engine_pid, signal.SIGKILL)
        wait_until(lambda: not sandbox.is_running() or sandbox.status() == psutil.STATUS_ZOMBIE)


@linux
def test_process_that_is_stopped_as_soon_as_it_is_there_does_not_outlive_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = os.fork()
    if not parent:
        try:
            process = ChildProcess[FromDownloader](DOWNLOADER, FromDownloader)
            wait_until(lambda: b"launcher" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
            # What the launcher asks for first, and long before the package is imported.
            time.sleep(0.1)
            os.kill(process.pid, signal.SIGSTOP)
            file.write_text(str(process.pid))
            time.sleep(1000)
        finally:
            os._exit(1)
    try:
        wait_until(lambda: file.exists() and file.read_text())
        child = psutil.Process(int(file.read_text()))
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@linux
def test_child_outlives_the_thread_that_has_asked_for_it() -> None:
    import threading

    made: list[ChildProcess[FromDownloader]] = []
    thread = threading.Thread(target=lambda: made.append(ChildProcess(DOWNLOADER, FromDownloader)))
    thread.start()
    thread.join()
    (process,) = made
    time.sleep(1.5)  # more than its start takes
    assert psutil.pid_exists(process.pid)
    assert psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE
    process.end()


def test_stopped_process_is_ended_at_once() -> None:
    process = ChildProcess[FromDownloader](DOWNLOADER, FromDownloader)
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert process.end() == -signal.SIGKILL
    # A server that stops has a second for everything that is left.
    assert time.monotonic() - began < 5.0
    with suppress(psutil.NoSuchProcess):
        assert not psutil.Process(process.pid).is_running()


def test_process_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        ChildProcess[FromDownloader](DOWNLOADER, FromDownloader)
