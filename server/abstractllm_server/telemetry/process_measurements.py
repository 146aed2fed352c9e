"""The measurements of the server's own process."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from abstractllm_server.telemetry.logs import dropped_records
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["process_measurements"]

_DESCRIPTORS = Path("/dev/fd")
_STATUS = Path("/proc/self/statm")
_started_at = time.monotonic()
"""The time at which this module was imported, a moment after the process began."""


def process_measurements() -> Iterator[Measurement]:
    """Yields CPU time, memory, descriptors, threads and age of the process, and the log lines that it dropped."""
    times = os.times()
    yield Measurement("process.cpu.time", times.user, {"cpu.mode": "user"})
    yield Measurement("process.cpu.time", times.system, {"cpu.mode": "system"})
    yield Measurement("process.memory.usage", _memory_bytes())
    # The folder's own descriptor is among them while it is read.
    yield Measurement("process.unix.file_descriptor.count", sum(1 for _ in _DESCRIPTORS.iterdir()) - 1)
    yield Measurement("abstractllm.process.file_descriptor.limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield Measurement("process.thread.count", _thread_count())
    yield Measurement("process.uptime", time.monotonic() - _started_at)
    yield Measurement("abstractllm.server.log.dropped", dropped_records())


def _memory_bytes() -> int:
    """Returns the bytes of memory that the process has now; where the system does not tell, the most that it had."""
    try:
        return int(_STATUS.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _thread_count() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()
