"""A server whose standard output and standard error nobody reads answers all the same, and ends when it is told to."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from abstractllm_api.v1 import generation_pb2_grpc
from tests.server.support import HANG, request
from tests.server.test_process import GRACE, MAIN, SLACK
from tests.waiting import until

NOISY = (
    """
import sys, warnings
from abstractllm.testing import ScriptedProvider
events = ScriptedProvider.events
async def noisy(self, request, config):
    print("stdout " + "x" * 2000)
    print("stderr " + "x" * 2000, file=sys.stderr)
    warnings.warn("a warning " + "x" * 2000, stacklevel=1)
    async for event in events(self, request, config):
        yield event
ScriptedProvider.events = noisy
"""
    + MAIN
)
"""A server whose LLM writes to all that there is to write to, on the event loop."""


class FullPipe:
    """A pipe without room, whose reader does not read yet."""

    def __init__(self) -> None:
        self.readable, self.writable = os.pipe()
        os.set_blocking(self.writable, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writable, b"." * 4096)
        os.set_blocking(self.writable, True)

    def read_until(self, pattern: bytes) -> bytes:
        """Reads until a pattern has come."""
        data = b""
        while not re.search(pattern, data):
            chunk = os.read(self.readable, 1 << 16)
            assert chunk, data[-2000:]
            data += chunk
        return data


@pytest.fixture
def pipe() -> Iterator[FullPipe]:
    pipe = FullPipe()
    yield pipe
    os.close(pipe.readable)
    os.close(pipe.writable)


@asynccontextmanager
async def started(path: Path, program: str, output: int, log_level: str = "debug") -> AsyncIterator[tuple[Any, Any]]:
    """Starts a server that writes to a descriptor; yields the process and a stub."""
    socket, file = path / "s.sock", path / "llms.yaml"
    file.write_text(
        f"listen: unix://{socket}\ngrace: {GRACE}\nlog_level: {log_level}\n"
        "llms:\n  echo: {provider: scripted, log_content: true}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, file),
        stdout=output,
        stderr=output,
        env=os.environ | {"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "http,call_error,channel"},
    )
    try:
        await until(socket.is_socket)
        async with aio.insecure_channel(f"unix:{socket}") as channel:
            yield process, generation_pb2_grpc.GenerationServiceStub(channel)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_all_are_answered_and_the_server_ends_while_nobody_reads(tmp_path: Path, pipe: FullPipe) -> None:
    async with started(tmp_path, NOISY, pipe.writable) as (process, generation):
        for _ in range(10):
            answers = await asyncio.gather(*(generation.Generate(request(), timeout=HANG) for _ in range(100)))
            assert {answer.text for answer in answers} == {"hello big world"}
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), HANG) == 0
        assert time.monotonic() - began < GRACE + 1 + SLACK


async def test_dropped_lines_are_told_when_somebody_reads_again(tmp_path: Path, pipe: FullPipe) -> None:
    async with started(tmp_path, NOISY, pipe.writable) as (_, generation):
        for _ in range(20):
            await asyncio.gather(*(generation.Generate(request(), timeout=HANG) for _ in range(50)))
        await asyncio.to_thread(pipe.read_until, rb"\d+ log records were dropped[^\n]*\n")
        await generation.Generate(request(), timeout=HANG)
        for line in (
            rb"WARNING abstractllm\.output stdout xxx",
            rb"WARNING abstractllm\.output stderr xxx",
            rb"INFO abstractllm\.output I\d{4} ",  # gRPC's own
        ):
            await asyncio.to_thread(pipe.read_until, line)
            await generation.Generate(request(), timeout=HANG)


async def test_second_signal_ends_the_server_while_nobody_reads(tmp_path: Path, pipe: FullPipe) -> None:
    async with started(tmp_path, MAIN, pipe.writable) as (process, generation):
        stream = generation.StreamGenerate(request(script=[{"text": "first"}, {"delay": 3000}]))
        await stream.read()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), GRACE + 1 + SLACK)
        stream.cancel()


@pytest.mark.parametrize("closed", ["stderr", "both", "reader"])
async def test_server_without_a_standard_error_serves(tmp_path: Path, closed: str) -> None:
    close = {"stderr": "os.close(2)", "both": "os.close(1); os.close(2)", "reader": ""}[closed]
    readable, writable = os.pipe()
    os.close(readable)
    program = f"import os, sys\nos.execv(sys.executable, [sys.executable, '-c', {NOISY!r}, sys.argv[1]])\n"
    async with started(tmp_path, f"import os\n{close}\n{program}", writable) as (process, generation):
        os.close(writable)
        answers = await asyncio.gather(*(generation.Generate(request(), timeout=HANG) for _ in range(20)))
        assert {answer.text for answer in answers} == {"hello big world"}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), HANG) == 0


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
async def test_command_that_is_started_without_standard_descriptors_hears_signals(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """The pipe of the signals had the number of one, until the log took its place."""
    serve = f"[sys.executable, '-m', 'abstractllm_cli', 'serve', '--config', {str(tmp_path / 'llms.yaml')!r}]"
    close = "; ".join(f"os.close({descriptor})" for descriptor in closed)
    program = f"import os, sys\n{close}\nos.execv(sys.executable, {serve})\n"
    async with started(tmp_path, program, subprocess.DEVNULL) as (process, generation):
        assert (await generation.Generate(request("hello"), timeout=HANG)).text == "hello"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), HANG) == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_fault_of_the_start_is_told_as_it_was_before(tmp_path: Path, form: str) -> None:
    file = tmp_path / "llms.yaml"
    file.write_text(f"log_format: {form}\nlisten: unix:///nowhere/at/all.sock\nllms:\n  echo: {{provider: scripted}}\n")
    done = subprocess.run([sys.executable, "-c", MAIN, file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: NOT_CONFIGURED: ")


async def test_stacks_of_a_server_that_crashes_are_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        async with started(tmp_path, MAIN, output.fileno(), "info") as (process, _):
            process.send_signal(signal.SIGSEGV)
            assert await asyncio.wait_for(process.wait(), HANG) == -signal.SIGSEGV
    # Python writes these two one after the other, and a line of gRPC's may come between them.
    written = log.read_bytes()
    assert b"Fatal Python error: " in written
    assert b"Segmentation fault" in written


async def test_server_that_crashes_does_not_wait_for_a_reader(tmp_path: Path, pipe: FullPipe) -> None:
    async with started(tmp_path, MAIN, pipe.writable, "info") as (process, _):
        process.send_signal(signal.SIGSEGV)
        assert await asyncio.wait_for(process.wait(), HANG) == -signal.SIGSEGV
