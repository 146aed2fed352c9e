"""The signals of a server: none but those that ask it to stop ends it, and those end it in time, whatever it does."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.lifecycle.signals import Action, actions
from tests.server.server_process import HANG, MAIN, SLACK, ServerProcess, server_process
from tests.server.support import failure_of, request
from tests.waiting import wait_until

FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGEMT"}
LEFT_ALONE = {"SIGKILL", "SIGSTOP", "SIGTSTP", "SIGCONT", "SIGCHLD"}
HARMLESS = sorted(number for number, action in actions().items() if action is not Action.STOP)
STOPPING = sorted(number for number, action in actions().items() if action is Action.STOP)
ENDLESS = [{"text": "first"}, {"delay": 3000}, {"text": "never"}]
SLOW = [{"text": "a"}, {"delay": 0.7}, {"text": " b"}]


def test_every_signal_has_an_action_or_is_left_alone_on_purpose() -> None:
    left = {signal.Signals(number).name for number in signal.valid_signals() - set(actions())}
    assert left <= FAULTS | LEFT_ALONE
    assert set(actions()) >= {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGPIPE}
    assert {signal.Signals(number).name for number in STOPPING} >= {"SIGTERM", "SIGINT"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("server")) as running:
        yield running


STOPPED_WHILE_IT_STARTS = """
import asyncio, os, signal, sys, time
from abstractllm_server.lifecycle import signals
signals._STARTING_SECONDS, grace, work = map(float, sys.argv[1:])
process = signals.ProcessSignals()
process.install()
os.kill(os.getpid(), signal.SIGTERM)
while not process.is_stopping:
    time.sleep(0.01)
time.sleep(0.1)
async def main():
    process.grace = grace
    process.attach(on_stop=lambda: None, on_reload=lambda: None)
    await asyncio.sleep(work)
asyncio.run(main())
process.end(0)
"""


@pytest.mark.parametrize(
    ("starting", "grace", "work", "status"), [(1, 600, 2, 0), (600, 0.1, 600, 1)], ids=["longer", "shorter"]
)
def test_a_stop_while_it_starts_has_the_grace_from_when_it_has_started(
    starting: float, grace: float, work: float, status: int
) -> None:
    command = [sys.executable, "-c", STOPPED_WHILE_IT_STARTS, *map(str, (starting, grace, work))]
    assert subprocess.run(command, timeout=HANG, check=False).returncode == status


@pytest.mark.parametrize("number", HARMLESS)
def test_signal_costs_no_call(server: ServerProcess, number: int) -> None:
    stream = server.begin(request(script=[{"text": "a"}, {"delay": 0.05}, {"text": " b"}]))
    server.send(number)
    assert "".join(event.text_delta.text for event in stream) == " b"
    assert server.answer() == "still there"


def test_many_signals_at_once_cost_no_call(server: ServerProcess) -> None:
    for _ in range(100):
        server.send(*HARMLESS)
    assert server.answer() == "still there"


@pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux's /proc")
def test_signals_while_the_server_starts_do_not_end_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--provider", "scripted", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        status = Path(f"/proc/{process.pid}/status")
        wait_until(lambda: int(status.read_text().partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGHUP - 1)
        while "listening on" not in (text := (tmp_path / "log").read_text()):
            for number in HARMLESS:
                process.send_signal(number)
            assert process.poll() is None, text
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", STOPPING)
def test_signal_lets_running_calls_end_and_then_the_process(tmp_path: Path, number: int) -> None:
    with server_process(tmp_path, settings="grace: 60\n") as server:
        stream = server.begin(request(script=SLOW))
        # `timeout` and terminals send theirs twice: that is one request to stop.
        server.send(number, number)
        assert "".join(event.text_delta.text for event in stream) == " b"
        assert server.ends()[0] == 0
        assert not server.socket.exists()


# What a thread, or the event loop, of a server may do that ends only much later.
BLOCKED = {
    "the loop sleeps": "time.sleep(3000)",
    "the loop computes": "\n    while True: pass",
    "the loop writes to a pipe that nobody reads": "pipe = os.pipe()\n    while True: os.write(pipe[1], b'x')",
    "the loop waits for a lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
}
UNENDED = {
    "a thread does not end": "threading.Thread(target=time.sleep, args=(3000,)).start()",
    "a function at the exit does not return": "atexit.register(time.sleep, 3000)",
}
BLOCKING = """
import asyncio, atexit, os, threading, time
from abstractllm.testing import ScriptedProvider
async def load(self):
    print("blocked", flush=True)
    {statement}
ScriptedProvider.load = load
"""


@pytest.mark.parametrize("kind", [*BLOCKED, *UNENDED])
def test_process_ends_in_time_whatever_is_blocked(tmp_path: Path, kind: str) -> None:
    program = BLOCKING.format(statement=(BLOCKED | UNENDED)[kind]) + MAIN
    with server_process(tmp_path, program=program, settings="grace: 0.2\n") as server:
        wait_until(lambda: "blocked" in server.log)
        server.send(signal.SIGTERM)
        status, seconds = server.ends()
        assert status == (1 if kind in BLOCKED else 0)
        assert seconds < 0.2 + 1 + SLACK
        assert not server.socket.exists()


def test_stacks_of_threads_and_tasks_are_logged_even_of_a_blocked_loop(tmp_path: Path) -> None:
    program = BLOCKING.format(statement="time.sleep(3000)") + MAIN
    with server_process(tmp_path, program=program) as server:
        wait_until(lambda: "blocked" in server.log)
        for number in (signal.SIGUSR1, signal.SIGQUIT):
            before = server.log.count("thread MainThread")
            server.send(number)
            wait_until(lambda seen=before: server.log.count("thread MainThread") > seen)  # type: ignore[misc]
        wait_until(lambda: "1 task" in server.log)
        assert "<string>:6 load" in server.log  # the place where the loop is


def test_stacks_tell_nothing_of_prompts(server: ServerProcess) -> None:
    stream = server.begin(request("canary-7261", script=ENDLESS))
    server.send(signal.SIGUSR1)
    wait_until(lambda: "tasks" in server.log or "1 task" in server.log)
    stream.cancel()
    assert "canary-7261" not in server.log


LOCAL = "  local: {provider: huggingface, model: demo, threads: 1, temperature: 0, max_batch_size: 8}\n"


def ask(tokens: int) -> pb.GenerateRequest:
    """A request whose answer goes on until its limit: the token that would end it is forbidden."""
    parameters = pb.GenerationParameters(max_tokens=tokens, logit_bias={4: -100.0})
    return pb.GenerateRequest(prompt="x", parameters=parameters)


def finish_reason(stream: Any) -> int:
    return int(next(event for event in stream if event.HasField("finished")).finished.finish_reason)


def test_signal_to_every_process_of_the_service_lets_local_answers_end_well(tmp_path: Path) -> None:
    with server_process(tmp_path, LOCAL, settings="grace: 200\n") as server:
        streams = [server.begin(ask(200)) for _ in range(8)]
        everybody = [psutil.Process(server.process.pid), *server.children]
        assert len(everybody) > 1
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGTERM):
            for process in everybody:
                process.send_signal(number)
        assert [finish_reason(stream) for stream in streams] == [2] * 8
        assert server.ends()[0] == 0
        assert psutil.wait_procs(everybody[1:], timeout=HANG)[1] == []


def test_signal_to_every_process_beyond_the_grace_ends_all_with_counts(tmp_path: Path) -> None:
    with server_process(tmp_path, LOCAL, settings="grace: 0.2\n") as server:
        streams = [server.begin(ask(1_900)) for _ in range(4)]
        everybody = [psutil.Process(server.process.pid), *server.children]
        for process in everybody:
            process.send_signal(signal.SIGTERM)
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            error = failure_of(caught.value)  # type: ignore[arg-type]
            assert error.reason == "SHUTTING_DOWN"
            assert int(error.metadata["output_tokens"]) > 0
        assert server.ends()[0] == 0
        assert psutil.wait_procs(everybody[1:], timeout=HANG)[1] == []


def test_forced_end_takes_stopped_engines_along(tmp_path: Path) -> None:
    program = BLOCKING.format(statement="time.sleep(3000)") + MAIN
    llms = LOCAL + "  echo: {provider: scripted, load_delay: 1}\n"
    with server_process(tmp_path, llms, program=program, settings="grace: 0.2\n") as server:
        stream = server.begin(ask(1_900))
        engines = server.children
        blocking = server.generation.Generate.future(request(llm="echo"))  # blocks the event loop
        wait_until(lambda: "blocked" in server.log)
        for engine in engines:
            engine.send_signal(signal.SIGSTOP)
        server.send(signal.SIGTERM)
        assert server.ends()[0] == 1
        assert psutil.wait_procs(engines, timeout=HANG)[1] == []
        stream.cancel()
        blocking.cancel()  # held until here: a call that nobody holds is cancelled


def test_second_signal_ends_the_process_at_once_and_leaves_no_socket(tmp_path: Path) -> None:
    with server_process(tmp_path, settings="grace: 600\n") as server:
        stream = server.begin(request(script=ENDLESS))
        server.send(signal.SIGTERM)
        wait_until(lambda: "stopping: " in server.log)  # from here on it is no longer the same signal
        threading.Event().wait(0.3)
        server.send(signal.SIGINT)
        assert server.ends()[0] == 130
        assert not os.path.lexists(server.socket)
        stream.cancel()
