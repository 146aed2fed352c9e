"""The systems that are measured, each with its own processes and with a process that measures it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.serving.stock import Settings
from benchmarks.serving.workload import Figures, Process, Workload

__all__ = ["System", "engine_alone", "in_process", "install_peer", "ours", "peer"]

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 120.0
"""Seconds that a server has to get ready."""


class System:
    """A system under measurement.

    Args:
        client: The process that measures it.
        server: The id of the server's process, whose CPU time counts, with that of its children; none if the client
            itself is what is measured.
    """

    def __init__(self, client: Process, server: int | None = None) -> None:
        self._client = client
        self._server = psutil.Process(server) if server else None

    def run(self, workload: Workload) -> Figures:
        """Measures a workload."""
        before = self._cpu_seconds()
        figures = self._client.run(workload)
        if before is None:
            return figures
        spent = (self._cpu_seconds() or 0.0) - before
        return dataclasses.replace(figures, cpu_ms_per_token=spent / workload.tokens * 1000)

    def _cpu_seconds(self) -> float | None:
        if self._server is None:
            return None
        processes = [self._server, *self._server.children(recursive=True)]
        return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


@contextmanager
def engine_alone(folder: Path, threads: int, settings: Settings) -> Iterator[System]:
    """Starts the stock batching engine in a process of its own, without a server."""
    arguments = [str(folder), str(threads), json.dumps(dataclasses.asdict(settings))]
    log = folder / f"alone-{settings.title}.log"
    process = Process("benchmarks.serving.alone", *arguments, log=log, environment=_threads(threads))
    with contextlib.closing(process):
        yield System(process)


@contextmanager
def in_process(folder: Path, threads: int) -> Iterator[System]:
    """Starts a process that calls the Python library, with the model in its engine process, and no server."""
    process = Process("benchmarks.serving.client_library", str(folder), str(threads), log=folder / "client_library.log")
    with contextlib.closing(process):
        yield System(process, process.pid)


@contextmanager
def ours(
    folder: Path,
    threads: int,
    *,
    server_keys: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[System]:
    """Starts our server and its engine process, which are called over gRPC.

    Args:
        folder: The model.
        threads: CPU threads of torch.
        server_keys: Further keys of the server's configuration.
        environment: Variables of the server's environment.
        **options: Further keys of the LLM's configuration.
    """
    file, log = folder / "llms.yaml", folder / "server.log"
    llm = {
        "provider": "huggingface",
        "model": str(folder),
        "threads": threads,
        "max_batch_size": 64,
        "max_queue": 1000,
        **options,
    }
    settings = {"listen": "127.0.0.1:0", "log_level": "info", **(server_keys or {}), "llms": {"local": llm}}
    file.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(file)]
    with _server(command, log, environment or {}) as server:
        address = str(settings["listen"])
        if address.endswith(":0"):
            address = _announced(server, log, r"listening on (\S+)")
        with grpc.insecure_channel(address) as channel:
            _wait_until_serving(HealthStub(channel), server, log)
        process = Process("benchmarks.serving.client_grpc", address, log=folder / "client_grpc.log")
        with contextlib.closing(process):
            yield System(process, server.pid)


@contextmanager
def peer(folder: Path, threads: int, packages: Path, settings: Settings) -> Iterator[System]:
    """Starts `transformers serve --continuous-batching`, which is called over HTTP.

    Args:
        folder: The model.
        threads: CPU threads of torch.
        packages: The folder that `install_peer` returned.
        settings: The settings of its engine.
    """
    log = folder / f"peer-{settings.title}.log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--continuous-batching", "--device", "cpu", "--dtype", "float32"]
    command += ["--cb-num-blocks", str(settings.blocks)]
    if settings.page is not None:
        command += ["--cb-block-size", str(settings.page)]
    if settings.step_tokens is not None:
        command += ["--cb-max-batch-tokens", str(settings.step_tokens)]
    command += ["--host", "127.0.0.1", "--port", "0"]
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _server(command, log, {"PYTHONPATH": path, **_threads(threads)}) as server:
        address = _announced(server, log, r"running on (http://\S+)")
        process = Process(
            "benchmarks.serving.client_http",
            address,
            str(folder),
            log=folder / f"client_http-{settings.title}.log",
            environment={"PYTHONPATH": path},
        )
        with contextlib.closing(process):
            yield System(process, server.pid)


def install_peer() -> Path:
    """Installs once what the peer needs beside the engine's packages; returns the folder."""
    packages = ROOT / "build" / "peer"
    wanted = Path(__file__).with_name("peer.txt")
    mark = packages / ".installed"
    if not mark.exists() or mark.read_text() != wanted.read_text():
        print(f"Installing what the peer needs into {packages.relative_to(ROOT)}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
        command += ["--target", str(packages), "--requirement", str(wanted)]
        subprocess.run([*command, "--constraint", str(ROOT / "constraints.txt")], check=True)
        mark.write_text(wanted.read_text())
    return packages


def _threads(count: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(count), "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def _server(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **environment}
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _announced(server: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """Returns the address that a server announces in its log."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        if announcement := re.search(pattern, log.read_text(errors="replace")):
            return announcement[1]
        time.sleep(0.1)
    return _give_up(log)


def _wait_until_serving(health: HealthStub, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while health.Check(HealthCheckRequest(), wait_for_ready=True).status != HealthCheckResponse.SERVING:
        if time.monotonic() > deadline or server.poll() is not None:
            _give_up(log)
        time.sleep(0.1)


def _give_up(log: Path) -> str:
    sys.exit(f"A server did not get ready:\n{log.read_text(errors='replace')[-3000:]}")
