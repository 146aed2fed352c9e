"""The limits of a control group, of either version, as a process reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from abstractllm.providers.huggingface import machine

MEBIBYTE = 1 << 20


@pytest.fixture
def control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group without any files."""
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n", "ascii")


def test_without_a_control_group_there_is_no_limit(control_group: Path) -> None:
    assert machine.cpu_quota() is None
    assert machine.memory_left() is None


def test_unlimited_control_group_has_no_limit(control_group: Path) -> None:
    write(control_group, **{"cpu.max": "max 100000", "memory.max": "max", "memory.current": "5", "memory.stat": "a 1"})
    assert machine.cpu_quota() is None
    assert machine.memory_left() is None


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu__cpu.cfs_quota_us": "200000", "cpu__cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "400000 100000", "cpu__cpu.cfs_quota_us": "100000", "cpu__cpu.cfs_period_us": "100000"}, 1.0),
    ],
)
def test_quota_of_processor_time_is_read(control_group: Path, files: dict[str, str], quota: float | None) -> None:
    write(control_group, **files)
    assert machine.cpu_quota() == quota


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_count_as_memory_that_is_left(control_group: Path, version: int) -> None:
    statistics = f"anon 5\ninactive_file {100 * MEBIBYTE}\nactive_file {50 * MEBIBYTE}"
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    limits = dict(zip(names, (str(500 * MEBIBYTE), str(400 * MEBIBYTE)), strict=True)) | {"memory.stat": statistics}
    write(control_group, **{name if version == 2 else f"memory__{name}": text for name, text in limits.items()})
    assert machine.memory_left() == 250 * MEBIBYTE


def test_memory_that_is_left_is_never_negative(control_group: Path) -> None:
    write(control_group, **{"memory.max": "10", "memory.current": "20", "memory.stat": "anon 20"})
    assert machine.memory_left() == 0
