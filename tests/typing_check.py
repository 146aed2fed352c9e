"""A type checker over a module of right calls and of planted mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check_planted_mistakes(cases: Path, cache: Path) -> None:
    """Asserts that mypy reports every mistake that a module plants, and nothing else.

    Args:
        cases: The module; a line with a mistake ends in `# error: CODE`.
        cache: A folder for mypy's cache.
    """
    options = ["--config-file", "pyproject.toml", "--cache-dir", cache, "--no-pretty", "--no-color-output"]
    command = [sys.executable, "-m", "mypy", "--strict", *options, cases]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    name = re.escape(cases.name)
    reported = set(re.findall(rf"{name}:(\d+): error: .*\[([\w-]+)\]$", run.stdout, re.MULTILINE))
    lines = enumerate(cases.read_text("utf-8").splitlines(), start=1)
    planted = {(str(number), match[1]) for number, line in lines if (match := re.search(r"# error: ([\w-]+)$", line))}
    assert len(planted) > 30
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert reported == planted, "\n".join(errors) + run.stderr
    assert all(f"{cases.name}:" in line for line in errors)
