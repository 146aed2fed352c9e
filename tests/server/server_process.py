"""A server in a process of its own, for tests that send it signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc, models_pb2_grpc
from tests.server.support import request
from tests.waiting import wait_until

HANG = 60.0
SLACK = 10.0
"""Seconds for a busy machine; far less than what the scripts of these tests would take."""

MAIN = """
import sys
from pathlib import Path
from abstractllm_server.app import run
from abstractllm_server.settings import load_settings
path = Path(sys.argv[1])
sys.exit(run(load_settings(path, {}), path, {}))
"""


class ServerProcess:
    """A running server.

    Attributes:
        file: Its configuration.
        socket: The unix socket that it listens on.
    """

    def __init__(self, process: subprocess.Popen[bytes], file: Path, log: Path, socket: Path) -> None:
        self.process = process
        self.file = file
        self.socket = socket
        self._log = log
        self.channel = grpc.insecure_channel(f"unix:{socket}")
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def log(self) -> str:
        """The text that it has logged."""
        return self._log.read_text("utf-8")

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that it has started, and those that these have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, *numbers: int) -> None:
        """Sends signals."""
        for number in numbers:
            self.process.send_signal(number)

    def answer(self, prompt: str = "still there", **fields: Any) -> str:
        """The text of an answer."""
        return str(self.generation.Generate(request(prompt, **fields), timeout=HANG).text)

    def begin(self, message: pb.GenerateRequest) -> Any:
        """A stream whose first text has come."""
        stream = self.generation.StreamGenerate(message, timeout=3 * HANG)
        while not next(stream).HasField("text_delta"):
            pass
        return stream

    def ends(self) -> tuple[int, float]:
        """Waits until the process has ended; returns its status, and how long that took."""
        began = time.monotonic()
        return self.process.wait(HANG), time.monotonic() - began


@contextmanager
def server_process(
    folder: Path,
    llms: str = "  echo: {provider: scripted}\n",
    *,
    program: str = MAIN,
    settings: str = "",
    listen: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """Runs a server in a process that ends with the context.

    Args:
        folder: Where its files are.
        llms: The LLMs, as lines of the configuration file.
        program: The program, whose argument is the file.
        settings: Other lines of the configuration file.
        listen: The address; a unix socket if empty.
        environment: Variables beside this process's.
    """
    socket, file, log = folder / "s.sock", folder / "llms.yaml", folder / "log"
    file.write_text(f"listen: {listen or f'unix://{socket}'}\n{settings}llms:\n{llms}")
    variables = {**os.environ, **(environment or {})}
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-c", program, str(file)], stderr=stderr, env=variables)
    started: list[psutil.Process] = []
    try:
        wait_until(lambda: process.poll() is not None or "listening on" in log.read_text("utf-8"))
        assert process.poll() is None, log.read_text("utf-8")
        server = ServerProcess(process, file, log, socket)
        with server.channel:
            yield server
            if process.poll() is None:
                started = server.children
    finally:
        process.kill()
        process.wait()
        for child in started:
            if child.is_running():
                child.send_signal(signal.SIGKILL)
