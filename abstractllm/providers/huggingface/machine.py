"""The machine as a process sees it: the limits of its control group, and its devices."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cpu_quota", "has_bfloat16", "has_nvidia_gpu", "memory_left"]

_CONTROL_GROUP = Path("/sys/fs/cgroup")
# Of control groups of version 2 and 1.
_CPU_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
_MEMORY_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def cpu_quota() -> float | None:
    """Returns the number of CPUs whose time the process's control group may use; None without a quota."""
    quotas = []
    for names in _CPU_FILES:
        try:
            quota, period = map(int, " ".join(map(_read, names)).split())
        except (OSError, ValueError):  # no control group of this version, or one without a quota ("max")
            continue
        if quota > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_left() -> int | None:
    """Returns the bytes that the process's control group may still take; None without a limit."""
    left = []
    for limit_name, usage_name, statistics_name in _MEMORY_FILES:
        try:
            limit, usage = int(_read(limit_name)), int(_read(usage_name))
            lines = _read(statistics_name).splitlines()
        except (OSError, ValueError):  # no control group of this version, or one without a limit ("max")
            continue
        counts = {name: int(value) for name, value in (line.split() for line in lines)}
        # Pages of files, such as those of the weights, count as used, but are given up when memory runs short.
        files = counts.get("inactive_file", 0) + counts.get("active_file", 0)
        left.append(max(0, limit - usage + files))
    return min(left, default=None)


def has_nvidia_gpu() -> bool:
    """Returns True if the machine has an NVIDIA GPU and its driver; torch need not be imported to know."""
    return Path("/dev/nvidiactl").exists()


def has_bfloat16() -> bool:
    """Returns True if the CPU has instructions for bfloat16."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text("ascii", "replace")
    except OSError:
        return False


def _read(name: str) -> str:
    return (_CONTROL_GROUP / name).read_text("ascii")
