"""Servers that are measured, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

__all__ = ["cpu_seconds", "free_port", "our_server", "running"]

_PATIENCE_SECONDS = 60.0


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Runs a process, and ends it at the end."""
    process = subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


@contextmanager
def our_server(
    folder: Path, llms: Mapping[str, Any], core: int | None = None, **settings: Any
) -> Iterator[tuple[str, psutil.Process]]:
    """Runs our server.

    Args:
        folder: The folder of its configuration and its log.
        llms: Its LLMs.
        core: The CPU core that it and its engines are held to; none if absent, and where the system cannot.
        **settings: Further keys of its configuration.

    Yields:
        Its address and its process.

    Raises:
        RuntimeError: If it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "llms.yaml", folder / "server.log"
    config.write_text(
        json.dumps({"listen": "127.0.0.1:0", "log_level": "info", **settings, "llms": dict(llms)}), "utf-8"
    )
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(config)]
    # Into a file: a pipe that nobody reads fills up, and then the server waits.
    with log.open("w") as output, _on_core(core), running(*command, stderr=output) as server:
        end = time.monotonic() + _PATIENCE_SECONDS
        while not (announcement := re.search(r"listening on (\S+)", log.read_text("utf-8", errors="replace"))):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.read_text('utf-8', errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield announcement[1], psutil.Process(server.pid)


@contextmanager
def _on_core(core: int | None) -> Iterator[None]:
    """Lets a process that is started now run on one core alone: it takes that over from this one."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[core % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def cpu_seconds(process: psutil.Process | None) -> float:
    """Returns the CPU time that a process and its children have taken so far; 0 without one."""
    if process is None:
        return 0.0
    return sum(float(sum(member.cpu_times()[:2])) for member in (process, *process.children(recursive=True)))


def free_port() -> int:
    """Returns a port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
