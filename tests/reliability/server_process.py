"""A server in a process of its own, as an operator starts it, and measured from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import yaml
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm.providers.huggingface.protocol.launcher import launch_command
from tests.reliability.figures import MEBIBYTE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds after which a server that does not answer counts as hanging: a busy machine is slow."""


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        address: The address for clients.
        process: The process itself.
        folder: The folder of its configuration and logs.
    """

    address: str
    process: subprocess.Popen[bytes]
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    credentials: grpc.ChannelCredentials | None = None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    @property
    def rss(self) -> float:
        """The memory that the server's own process holds, in MiB."""
        return psutil.Process(self.pid).memory_info().rss / MEBIBYTE

    @property
    def descriptors(self) -> int:
        """The open file descriptors."""
        return psutil.Process(self.pid).num_fds()

    @property
    def threads(self) -> int:
        """The threads."""
        return psutil.Process(self.pid).num_threads()

    @property
    def children(self) -> list[psutil.Process]:
        """The processes below it: engines, downloads and what they start."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    @property
    def engine(self) -> psutil.Process:
        """The engine process; the first, where there are several.

        Raises:
            IndexError: If there is none.
        """
        return [child for child in self.children if "worker" in " ".join(child.cmdline())][0]  # noqa: RUF015

    @property
    def log(self) -> str:
        """All that was written to the standard error."""
        return (self.folder / "stderr.log").read_text("utf-8", errors="replace")

    def reset_peak(self) -> None:
        """Starts the measurement of the peak anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def peak(self) -> float:
        """The most memory that the server's own process held since the last `reset_peak`, in MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("the process has ended")

    async def settled_rss(self, limit: float = 0.0, timeout: float = 30.0) -> float:
        """Returns the memory once it is below `limit`, or the least of the next seconds, in MiB.

        What was freed is given back to the system from time to time, not at once.
        """
        end, least = time.monotonic() + timeout, self.rss
        while least > limit and time.monotonic() < end:
            await asyncio.sleep(0.1)
            least = min(least, self.rss)
        return least

    def channel(self, options: list[tuple[str, Any]] | None = None) -> aio.Channel:
        """Returns a new connection of the ordinary kind."""
        options = [("grpc.use_local_subchannel_pool", 1), *(options or [])]
        if self.credentials is not None:
            options.append(("grpc.ssl_target_name_override", "localhost"))
        if self.credentials is not None:
            return aio.secure_channel(self.address, self.credentials, options)
        return aio.insecure_channel(self.address, options)

    async def is_healthy(self, service: str = "", timeout: float = 2.0) -> bool:
        """Returns whether the main port says SERVING."""
        async with self.channel() as channel:
            try:
                check = health_pb2_grpc.HealthStub(channel).Check
                answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
            except aio.AioRpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def becomes_healthy(self, service: str = "", timeout: float = PATIENCE) -> float:
        """Waits until it says SERVING; returns the seconds that took.

        Raises:
            TimeoutError: If it does not.
            RuntimeError: If the process ends.
        """
        began = time.monotonic()
        while not await self.is_healthy(service):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log[-2000:]}")
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"not SERVING after {timeout:g} seconds: {self.log[-2000:]}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def ends(
        self, number: signal.Signals = signal.SIGTERM, timeout: float = 60.0, *, group: bool = False
    ) -> float:
        """Sends a signal to the process, or, as systemd does, to all below it too.

        Returns:
            The seconds until it has ended, or infinity.
        """
        began = time.monotonic()
        for process in [*(self.children if group else ()), self.process]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        while self.process.poll() is None:
            if time.monotonic() - began > timeout:
                return float("inf")
            await asyncio.sleep(0.01)
        return time.monotonic() - began


class _Plain(yaml.SafeDumper):
    """Writes every value out: the server takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def free_port() -> int:
    """Returns a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(file: Path, *flags: str) -> list[str]:
    """Returns the command that serves a configuration file."""
    return [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file), *flags]


def environment(**variables: str) -> dict[str, str]:
    """Returns the environment of a server: ours, without proxies and other people's keys."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.endswith(("_KEY", "_TOKEN")) and not name.startswith("OTEL")
    }
    return kept | {"PYTHONUNBUFFERED": "1"} | variables


def echo(**keys: Any) -> dict[str, Any]:
    """Returns the configuration of one scripted LLM."""
    return {"echo": {"provider": "scripted", **keys}}


@asynccontextmanager
async def serving(
    folder: Path,
    llms: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    ready: bool = True,
    descriptors: int | None = None,
    outputs: tuple[Any, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    **settings: Any,
) -> AsyncIterator[ServerProcess]:
    """Starts a server; ends it, and all processes below it, at the end.

    Args:
        folder: Where its configuration and its logs are put.
        llms: The configuration of its LLMs; one scripted LLM, `echo`, if absent.
        ready: True to wait until its default LLM can answer.
        descriptors: The limit of open files, soft and hard.
        outputs: The standard output and error; files in `folder` if absent.
        variables: Further variables of its environment.
        credentials: Those that clients need.
        **settings: Further keys of the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = str(settings.pop("listen", f"127.0.0.1:{free_port()}"))
    config = {"listen": address, "log_level": "warning", "grace": 2, **settings, "llms": dict(llms or echo())}
    file = folder / "llms.yaml"
    file.write_text(yaml.dump(config, Dumper=_Plain, sort_keys=False))

    # A measurement that is killed leaves no server behind. No `preexec_fn` sees to that: with one, gRPC's handlers of a
    # fork run in the child before its program, and one in a hundred dies there: "epoll_wait: Bad file descriptor".
    program, *arguments = command(file)[2:]
    launched = launch_command(program, *arguments, at_parents_end=signal.SIGKILL)
    if descriptors is not None:
        launched = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(descriptors), *launched]
    with (folder / "stdout.log").open("wb") as stdout, (folder / "stderr.log").open("wb") as stderr:
        process = subprocess.Popen(
            launched,
            cwd=ROOT,
            env=environment(**(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=outputs[0] if outputs else stdout,
            stderr=outputs[1] if outputs else stderr,
            start_new_session=True,
        )
    server = ServerProcess(address, process, folder, config, credentials)
    below: list[psutil.Process] = []
    try:
        if ready:
            await server.becomes_healthy()
        yield server
    finally:
        below = server.children
        if process.poll() is None:
            process.kill()
            process.wait()
        for child in below:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def descendants_left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Returns those processes that still run."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
