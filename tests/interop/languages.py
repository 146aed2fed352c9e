"""The commands that build and start each language's runner."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNNERS = HERE / "runners"


@dataclass(frozen=True)
class Language:
    """One language of the suite.

    Attributes:
        file: The name of its file in each behaviour's folder.
        build: Builds what has to be built, and returns the runner's command.
    """

    name: str
    file: str
    build: Callable[[Path], list[str]]


def _python(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.interop.runners.python.main"]


def _go(folder: Path) -> list[str]:
    _run(["go", "build", "-o", str(folder / "runner"), "./runners/go"], HERE)
    return [str(folder / "runner")]


def _java(folder: Path) -> list[str]:
    _run(["sh", str(RUNNERS / "java/build.sh"), str(folder)], ROOT)
    return ["java", "-cp", (folder / "classpath").read_text().strip(), "Main"]


def _node(folder: Path) -> list[str]:
    _run(["sh", str(RUNNERS / "node/build.sh")], ROOT)
    return ["node", str(RUNNERS / "node/main.mjs")]


LANGUAGES = {
    language.name: language
    for language in (
        Language("python", "run.py", _python),
        Language("go", "run.go", _go),
        Language("java", "Run.java", _java),
        Language("node", "run.mjs", _node),
    )
}


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-5000:]}{done.stderr[-5000:]}")
