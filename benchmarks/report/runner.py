"""Runs the programs of a part within its time, and ends whatever they leave."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.parts import ROOT, Part
from benchmarks.report.reading import FormError, read_results
from benchmarks.report.store import Entry
from benchmarks.results import SECONDS_VARIABLE, Results

__all__ = ["PartFailedError", "run_part"]

_GRACE_SECONDS = 25.0
"""Time that a program has to end what it has started, once its own time is up."""
_SHARE = 0.85
"""The part of its time in which a program should be done with its rounds."""
_ERROR_CHARACTERS = 1500
_MARK_VARIABLE = "BENCHMARK_MARK"
"""The environment variable by which all that a program has started is known."""


class PartFailedError(Exception):
    """A program of a part failed; the message says why."""


def run_part(part: Part, seconds: float) -> Entry:
    """Runs the programs of a part.

    Args:
        part: The part.
        seconds: The time that they have.

    Returns:
        What was measured, or the failure.
    """
    date, load = datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), _load()
    began = time.monotonic()
    results: list[Results] = []
    status, error = "measured", part.lacking()
    if error:
        status = "missing"
    else:
        end = began + seconds
        try:
            results += [_run(command, end) for command in part.commands]
        except PartFailedError as failure:
            status, error, results = "failed", _without_paths(str(failure)), []
    return Entry(
        status,
        error,
        date,
        _commit(),
        _cpu_name(),
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        platform.system(),
        platform.python_version(),
        time.monotonic() - began,
        (load, _load()),
        tuple(results),
    )


def _run(command: Sequence[str], end: float) -> Results:
    left = end - time.monotonic()
    if left <= 0:
        raise PartFailedError(f"no time was left for {' '.join(command)}")
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "results.json"), Path(folder, "log")
        arguments = [sys.executable, "-m", *command, "--json", str(file)]
        mark = secrets.token_hex(16)
        environment = {**os.environ, SECONDS_VARIABLE: f"{left * _SHARE:.0f}", _MARK_VARIABLE: mark}
        with log.open("w") as output:
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
            with _ended(process, mark):
                try:
                    code = process.wait(left)
                except subprocess.TimeoutExpired:
                    told = _tail(log)
                    raise PartFailedError(f"{' '.join(command)} took longer than {left:.0f} s\n{told}") from None
        if code != 0:
            raise PartFailedError(f"{' '.join(command)} ended with {code}\n{_tail(log)}")
        try:
            return read_results(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, FormError) as error:
            raise PartFailedError(f"{' '.join(command)} gave no results: {error}\n{_tail(log)}") from error


class _ended(contextlib.AbstractContextManager[None]):  # noqa: N801 - read as a function
    """Ends a program that still runs, and then all that it has started: it may have crashed, or left its group."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str) -> None:
        self._process = process
        self._mark = mark

    def __exit__(self, *_: Any) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
            self._process.kill()
            self._process.wait()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK_VARIABLE) == self._mark:
                    process.kill()


def _tail(log: Path) -> str:
    return log.read_text("utf-8", errors="replace").strip()[-_ERROR_CHARACTERS:]


def _without_paths(text: str) -> str:
    """Returns a text without the folders of this machine."""
    for folder, name in (
        (str(ROOT), "."),
        (sys.prefix, ".venv"),
        (str(Path.home()), "~"),
        (tempfile.gettempdir(), "TMP"),
    ):
        text = text.replace(folder, name)
    return text.replace("```", "'''")


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    with contextlib.suppress(OSError):
        if commit := git("rev-parse", "--short=12", "HEAD"):
            changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
            return f"{commit}{'+' * bool(changed)}"
    return "unknown"


def _load() -> float:
    return os.getloadavg()[0]


def _cpu_name() -> str:
    """Returns the processor's name where the system tells it, otherwise its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
