"""The server as a process: what it imports, and how signals end it."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm_api.v1 import generation_pb2_grpc
from tests.server.support import HANG, collect, failure, request
from tests.waiting import until

GRACE = 1.0
SLACK = 10.0
"""Seconds for a busy machine; far less than what the scripts here would take."""
ENDLESS = [{"text": "first"}, {"delay": 3000}, {"text": "never"}]

MAIN = """
import sys
from pathlib import Path
from abstractllm_server.app import run
from abstractllm_server.settings import load_settings
path = Path(sys.argv[1])
sys.exit(run(load_settings(path, {}), path))
"""


class Process:
    """A server in a process of its own, on a unix socket."""

    def __init__(self, process: asyncio.subprocess.Process, channel: aio.Channel, path: Path) -> None:
        self.process = process
        self.path = path
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def ends(self, *signals: signal.Signals) -> tuple[int, float]:
        """Sends signals; returns the exit status and how long the process took to end."""
        began = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            await asyncio.sleep(0.2)
        status = await asyncio.wait_for(self.process.wait(), HANG)
        return status, time.monotonic() - began


Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    @asynccontextmanager
    async def started(llm: str = "", program: str = MAIN, grace: float = GRACE) -> AsyncIterator[Process]:
        path, file = tmp_path / "s.sock", tmp_path / "llms.yaml"
        llm = f"{{provider: scripted, {llm}}}"
        file.write_text(f"listen: unix://{path}\ngrace: {grace}\nllms:\n  echo: {llm}\n")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, file), stderr=subprocess.DEVNULL
        )
        try:
            await until(path.is_socket)
            async with aio.insecure_channel(f"unix:{path}") as channel:
                yield Process(process, channel, path)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_running_calls_within_the_grace_and_the_process_well(start: Start, number: Any) -> None:
    async with start() as server:
        endless = [server.generation.StreamGenerate(request(script=ENDLESS)) for _ in range(5)]
        short = server.generation.StreamGenerate(request(script=[{"text": "a"}, {"delay": 0.5}, {"text": " b"}]))
        for stream in [*endless, short]:
            await stream.read()
        ending = asyncio.create_task(server.ends(number))
        outcomes = [asyncio.create_task(failure(_rest(stream))) for stream in endless]
        assert "".join(event.text_delta.text for event in await _rest(short)) == "a b"
        for event in await asyncio.gather(*outcomes):
            assert (event.code.name, event.reason, event.pushbacks) == ("UNAVAILABLE", "SHUTTING_DOWN", ["1000"])
        status, seconds = await ending
        assert status == 0
        assert GRACE <= seconds < GRACE + 1 + SLACK
        assert not server.path.exists()


async def _rest(stream: Any) -> list[Any]:
    messages = []
    while (message := await asyncio.wait_for(stream.read(), HANG)) is not aio.EOF:
        messages.append(message)
    return messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_process_ends_without_waiting_for_the_grace(start: Start, number: Any) -> None:
    async with start(grace=600) as server:
        answer = await server.generation.Generate(request(), timeout=HANG)
        assert answer.text == "hello big world"
        status, _ = await server.ends(number)
        assert status == 0


async def test_second_signal_ends_the_process_at_once(start: Start) -> None:
    async with start(grace=600) as server:
        stream = server.generation.StreamGenerate(request(script=ENDLESS))
        await stream.read()
        watch = server.health.Watch(health_pb2.HealthCheckRequest(service=""))
        for number, seen in ((0, 1), (signal.SIGTERM, 2)):  # ready; then the first signal has been taken
            server.process.send_signal(number)
            while (await asyncio.wait_for(watch.read(), HANG)).status != seen:
                pass
        await asyncio.sleep(0.2)
        status, _ = await server.ends(signal.SIGINT)
        assert status == 130
        stream.cancel()


async def test_signal_while_a_model_loads_ends_the_process(start: Start) -> None:
    async with start("load_delay: 3000") as server:
        question = health_pb2.HealthCheckRequest
        assert (await server.health.Check(question(service="liveness"), wait_for_ready=True)).status == 1
        assert (await server.health.Check(question(service=""))).status == 2
        waiting = asyncio.create_task(failure(collect(server.generation.StreamGenerate(request()))))
        await asyncio.sleep(0.1)
        status, seconds = await server.ends(signal.SIGTERM)
        assert status == 0
        assert seconds < GRACE + 1 + SLACK
        assert (await waiting).reason == "SHUTTING_DOWN"


BLOCKING = (
    """
import asyncio, sys, time
from abstractllm.testing import ScriptedProvider
async def load(self):
    await asyncio.to_thread(time.sleep, 3000)
ScriptedProvider.load = load
"""
    + MAIN
)


async def test_thread_that_cannot_be_ended_does_not_hold_up_the_exit(start: Start) -> None:
    async with start("load_delay: 1", program=BLOCKING, grace=600) as server:
        assert (await server.health.Check(health_pb2.HealthCheckRequest(service=""), wait_for_ready=True)).status == 2
        status, seconds = await server.ends(signal.SIGTERM)
        assert status == 0
        assert seconds < SLACK


EARLY = (
    """
import os, signal
from abstractllm_server.app import Server
start = Server.start
async def start_late(self):
    os.kill(os.getpid(), signal.SIGTERM)
    await start(self)
Server.start = start_late
"""
    + MAIN
)


def test_signal_during_the_start_ends_the_process_well(tmp_path: Path) -> None:
    file = tmp_path / "llms.yaml"
    file.write_text("listen: 127.0.0.1:0\nllms:\n  echo: {provider: scripted}\n")
    done = subprocess.run([sys.executable, "-c", EARLY, file], capture_output=True, text=True, timeout=3 * HANG)
    assert done.returncode == 0, done.stderr


def test_port_in_use_ends_the_process_with_a_line_that_says_so(tmp_path: Path) -> None:
    import socket

    file = tmp_path / "llms.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        file.write_text(f"llms:\n  echo: {{provider: scripted}}\nlisten: {address}\n")
        done = subprocess.run([sys.executable, "-c", MAIN, file], capture_output=True, text=True, timeout=3 * HANG)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: NOT_CONFIGURED: {file}:3: listen: cannot listen on {address}")
    assert "Traceback" not in done.stderr


STARTED = """
import asyncio, sys
from abstractllm.registry import LLMRegistry
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
async def main():
    llms = {"echo": {"provider": "scripted"}}
    async with Server(LLMRegistry.from_config(llms), ServerSettings(listen="127.0.0.1:0", llms=llms)):
        pass
asyncio.run(main())
print(*sys.modules, sep="\\n")
"""


def test_server_without_their_llms_imports_no_sdk() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=3 * HANG, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "abstractllm_server" in loaded
    assert not loaded & {"torch", "transformers", "openai", "anthropic", "ollama", "numpy", "huggingface_hub", "httpx"}
