"""The signals of engines, downloads and sandboxes: they end with their channel, whatever is sent to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from abstractllm import create_llm
from abstractllm._core.process_groups import process_groups
from abstractllm.providers.huggingface.hub.downloader.messages import FromDownloader
from abstractllm.providers.huggingface.protocol.child_process import ChildProcess
from abstractllm.providers.huggingface.protocol.signals import IGNORED
from abstractllm.types import JsonSchemaFormat
from tests.waiting import wait_until

HARMLESS = sorted({*IGNORED, signal.SIGUSR1, signal.SIGCONT, signal.SIGCHLD})
FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}
JSON = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
DOWNLOADER = "abstractllm.providers.huggingface.hub.downloader"

linux = pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's /proc")


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_every_signal_but_faults_kill_and_stop_is_harmless_to_a_child() -> None:
    others = {number for number in signal.valid_signals() if number not in HARMLESS}
    assert {signal.Signals(number).name for number in others} == FAULTS | {"SIGKILL", "SIGSTOP"}


@pytest.fixture(scope="module")
def llm() -> Iterator[object]:
    with create_llm("huggingface", model="demo", threads=1) as demo:
        # Makes a sandbox: a grammar is tried there first.
        demo.generate("x", max_tokens=2, response_format=JsonSchemaFormat(JSON))
        yield demo


@pytest.mark.parametrize("number", HARMLESS)
def test_engine_and_its_sandbox_outlive_a_signal(llm: object, number: int) -> None:
    engine = psutil.Process(llm.engine_pid)  # type: ignore[attr-defined]
    processes = [engine, *engine.children(recursive=True)]
    assert len(processes) == 2
    for process in processes:
        process.send_signal(number)
    answer = llm.generate("What is the capital of France?", max_tokens=3)  # type: ignore[attr-defined]
    assert answer
    assert llm.engine_pid == engine.pid  # type: ignore[attr-defined]
    assert [process.pid for process in (engine, *engine.children(recursive=True))] == [p.pid for p in processes]


@linux
def test_signals_during_the_start_of_a_child_are_harmless_too() -> None:
    process = ChildProcess[FromDownloader](DOWNLOADER, FromDownloader)
    try:
        for number in HARMLESS:
            os.kill(process.pid, number)
        wait_until(lambda: _is_settled(process.pid))
        for number in HARMLESS:
            os.kill(process.pid, number)
        assert is_running(process.pid)
    finally:
        assert process.end() == 0


def _is_settled(pid: int) -> bool:
    """Returns whether a child ignores what it is to ignore, and blocks nothing any more."""
    ignored, blocked = (_signals(pid, name) for name in ("SigIgn", "SigBlk"))
    return ignored >= IGNORED and not blocked


def _signals(pid: int, name: str) -> set[int]:
    """The signals of one of Linux's masks of a process."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith(f"{name}:"))
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


PARENT = """
import sys, threading
from abstractllm.providers.huggingface.protocol.child_process import EngineProcess
print(EngineProcess().pid, flush=True)
threading.Event().wait()
"""


@linux
def test_stopped_engine_does_not_outlive_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout as output:
        engine = int(output.readline())
        wait_until(lambda: _is_settled(engine))
        os.kill(engine, signal.SIGSTOP)
        parent.kill()
    wait_until(lambda: not is_running(engine))


def test_all_groups_are_killed_even_stopped_ones() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '1000'])"], start_new_session=True
    )
    wait_until(lambda: psutil.Process(child.pid).children())
    (grandchild,) = psutil.Process(child.pid).children()
    os.killpg(child.pid, signal.SIGSTOP)
    process_groups.add(child.pid)
    try:
        process_groups.kill_all()
        assert child.wait(60) == -signal.SIGKILL
        wait_until(lambda: not is_running(grandchild.pid))
        process_groups.kill_all()  # of what has ended, nothing is left to be killed
    finally:
        process_groups.discard(child.pid)


REAPER = """
import ctypes, sys, time
from abstractllm.providers.huggingface.hub.downloader.messages import FromDownloader
from abstractllm.providers.huggingface.protocol.child_process import ChildProcess
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: inherits orphans, as the first process of a container does
process = ChildProcess(sys.argv[1], FromDownloader)
while not (output := process.last_words()):
    time.sleep(0.01)
process.end()
import psutil
print([child.status() for child in psutil.Process().children()])
"""
FAMILY = """
import subprocess, time
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
time.sleep(1000)
"""


@linux
def test_nothing_is_left_of_a_child_where_the_server_is_the_first_process_of_a_container(tmp_path: Path) -> None:
    program = tmp_path / "family.py"
    program.write_text(FAMILY)
    done = subprocess.run(
        [sys.executable, "-c", REAPER, program], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.strip() == "[]"
