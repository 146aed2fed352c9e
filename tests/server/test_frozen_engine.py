"""An engine process that is stopped or hangs: who is told what, when, and what is left of it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm.providers.huggingface.protocol.child_process import ChildProcess, EngineProcess
from abstractllm.providers.huggingface.protocol.messages import FromEngine
from abstractllm_api.v1 import generation_pb2_grpc
from tests.server.local import PATIENCE, Local, ask, local
from tests.server.support import failure, failure_of
from tests.unit.tiny_models import build
from tests.waiting import until, wait_until

BOUND = 4.0
"""The heartbeat timeout of these tests, in seconds."""
SLACK = 20.0
"""Seconds for a busy machine."""
module_loop = pytest.mark.asyncio(loop_scope="module")
NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Local]:
    """A server whose local model answers two requests at a time."""
    folder = tmp_path_factory.mktemp("model")
    async with local(folder, window=100_000, heartbeat_timeout=60, max_batch_size=2) as running:
        yield running


async def status(served: Local, service: str = "") -> int:
    return int((await served.health.Check(health_pb2.HealthCheckRequest(service=service))).status)


@module_loop
async def test_engine_that_is_stopped_for_a_moment_goes_on_with_its_answers(served: Local) -> None:
    pid = served.llm.engine_pid
    assert pid is not None
    answer = asyncio.create_task(_answer(served, 200))
    await until(lambda: served.counters.running)
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: not served.llm.is_responsive)
    # What comes meanwhile is not given to it.
    late = asyncio.create_task(_answer(served, 3))
    await until(lambda: served.llm.queued == 1)
    os.kill(pid, signal.SIGCONT)
    assert (await answer).usage.output_tokens == 200
    assert (await late).usage.output_tokens == 3
    assert served.llm.is_responsive
    assert served.llm.engine_pid == pid
    assert await status(served) == SERVING


@module_loop
async def test_frozen_engine_is_noticed_told_to_its_callers_ended_and_started_again(served: Local) -> None:
    served.llm.set_config(heartbeat_timeout=BOUND)
    pid = served.llm.engine_pid
    assert pid is not None
    running = [served.generation.StreamGenerate(ask()) for _ in range(2)]
    for stream in running:
        while not (await stream.read()).HasField("text_delta"):
            pass
    waiting = [asyncio.create_task(_answer(served, 3)) for _ in range(20)]
    await until(lambda: served.llm.running == 22)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await until(lambda: not served.llm.is_responsive)
    noticed = time.monotonic() - began
    async with asyncio.timeout(BOUND):  # it is told from another thread, a moment later
        while await status(served) != NOT_SERVING:
            pass
    assert await status(served, "llm/local") == NOT_SERVING
    assert served.llm.silence > 0
    ends = [failure_of(await _error_of(stream)) for stream in running]
    assert noticed < time.monotonic() - began < BOUND + SLACK
    for end in ends:
        assert (end.code, end.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_CRASHED")
        assert "gave no sign of life within 4 s" in end.message
        assert end.retry_delays
        assert end.retry_delays[0] >= 1
    await until(lambda: not psutil.pid_exists(pid))
    # Of those that waited, the few that were sent ahead of their turn are told, too; the others are answered.
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)
    told_too = [failure_of(answer) for answer in answers if isinstance(answer, aio.AioRpcError)]
    assert {end.reason for end in told_too} <= {"ENGINE_CRASHED"}
    assert len(told_too) <= 8
    assert sum(getattr(answer, "usage", None) is not None for answer in answers) == 20 - len(told_too)
    assert served.llm.engine_pid not in (None, pid)
    await served.comes_to_rest()
    assert (await status(served), await status(served, "llm/local")) == (SERVING, SERVING)
    assert served.llm.engine_statistics.restarts["frozen"] == 1


@module_loop
async def test_engine_that_is_stopped_while_it_loads_fails_to_load(served: Local) -> None:
    async for _ in served.llm.unload():
        pass
    served.llm.set_config(heartbeat_timeout=1)
    call = asyncio.create_task(failure(served.generation.Generate(ask(max_tokens=3))))
    await until(lambda: served.llm.engine_pid is not None)
    pid = served.llm.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    end = await asyncio.wait_for(call, 4 + SLACK)
    assert end.reason == "MODEL_LOAD_FAILED"
    assert "gave no sign of life within 4 s" in end.message
    assert not psutil.pid_exists(pid)
    assert served.llm.state[0] == "failed"


async def _answer(served: Local, tokens: int) -> Any:
    return await served.generation.Generate(ask(max_tokens=tokens), timeout=PATIENCE)


async def _error_of(stream: Any) -> aio.AioRpcError:
    try:
        async with asyncio.timeout(PATIENCE):
            while await stream.read() is not aio.EOF:
                pass
    except aio.AioRpcError as error:
        return error
    raise AssertionError("the stream ended well")


@module_loop
async def test_hung_step_is_ended_although_the_process_answers_pings(
    served: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async for _ in served.llm.unload():
        pass
    order = tmp_path / "hang"
    monkeypatch.setenv("TEST_HANG_ORDER", str(order))
    monkeypatch.setattr(EngineProcess, "__init__", _start_hanging_engine)
    served.llm.set_config(heartbeat_timeout=60, step_timeout=3)
    stream = served.generation.StreamGenerate(ask())
    while not (await stream.read()).HasField("text_delta"):
        pass
    pid = served.llm.engine_pid
    began = time.monotonic()
    order.touch()
    end = failure_of(await _error_of(stream))
    assert time.monotonic() - began < 3 + SLACK
    assert end.reason == "ENGINE_CRASHED"
    assert "got no further with a step of the batch within 3 s" in end.message
    assert (await _answer(served, 3)).usage.output_tokens == 3
    assert served.llm.engine_pid not in (None, pid)


def _start_hanging_engine(self: Any) -> None:
    ChildProcess.__init__(self, str(Path(__file__).with_name("hanging_engine.py")), FromEngine)


# The server as a process of its own, whose end leaves nothing behind.

CONFIGURATION = """
listen: unix://{path}
grace: 1
llms:
  local: {{provider: huggingface, model: {model}, threads: 1, kv_cache_bytes: 64MiB, heartbeat_timeout: {bound}}}
"""


class ServerProcess:
    """A server with a local model, as a process."""

    def __init__(self, folder: Path, bound: float) -> None:
        model = build(folder / "llama", "llama", max_position_embeddings=100_000)
        self.path, file = folder / "s.sock", folder / "llms.yaml"
        file.write_text(CONFIGURATION.format(path=self.path, model=model, bound=bound))
        command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file)]
        self.process = psutil.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self.path.is_socket)
        self.channel = grpc.insecure_channel(f"unix:{self.path}")
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        health = health_pb2_grpc.HealthStub(self.channel)
        check = health_pb2.HealthCheckRequest()
        wait_until(lambda: health.Check(check, wait_for_ready=True, timeout=PATIENCE).status == SERVING)
        (self.engine,) = self.process.children()

    def stream(self) -> Any:
        """A call whose answer has begun, and goes on."""
        stream = self.generation.StreamGenerate(ask(), timeout=PATIENCE)
        while not next(stream).HasField("text_delta"):
            pass
        return stream


@contextlib.contextmanager
def server_process(folder: Path, bound: float = 60.0) -> Iterator[ServerProcess]:
    server = ServerProcess(folder, bound)
    try:
        yield server
    finally:
        server.channel.close()
        for process in (server.process, server.engine):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.process.wait()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_pause_of_the_whole_machine_is_not_blamed_on_the_engine_and_a_stopped_engine_ends_with_its_server(
    tmp_path: Path,
) -> None:
    with server_process(tmp_path, bound=2) as server:
        stream = server.stream()
        for process in (server.process, server.engine):
            process.suspend()
        time.sleep(4)  # twice the bound
        for process in (server.process, server.engine):
            process.resume()
        for _ in range(3):
            next(stream)
        assert server.process.children() == [server.engine]
        stream.cancel()
        server.engine.suspend()
        server.process.terminate()
        server.process.wait(1 + 1 + SLACK)
        wait_until(lambda: is_gone(server.engine), timeout=SLACK)
