"""Batching with the newest version of transformers that the package allows; all other tests run with the lowest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

NEWEST = "5.24.0"
TESTS = (
    "test_attention.py",
    "test_batching.py",
    "test_cuda_graphs.py",
    "test_paged_decode.py",
    "test_sampler.py",
    "test_step_inputs.py",
    "test_step_pipeline.py",
    "test_transformers_seams.py",
)
KERNEL = "tests/unit/test_paged_decode.py::test_each_new_token_attends_to_its_sequence_and_is_put_into_the_cache"
"""Nothing of transformers takes part in it, and Triton's interpreter is slow."""


def test_the_range_is_from_the_installed_version_to_the_newest_that_is_tried(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    listed = [each for each in project["optional-dependencies"]["huggingface"] if each.startswith("transformers")]
    lowest, beyond = re.fullmatch(r"transformers>=([\d.]+),<([\d.]+)", listed[0]).groups()
    assert version("transformers").startswith(f"{lowest}.")
    major, minor, _ = map(int, NEWEST.split("."))
    assert beyond == f"{major}.{minor + 1}"


@pytest.mark.timeout(600)
def test_requests_are_batched_with_the_newest_version(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-compile", "--target", str(tmp_path), f"transformers=={NEWEST}"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
    imported = [sys.executable, "-c", "import transformers; print(transformers.__version__)"]
    assert subprocess.check_output(imported, env=environment, text=True).strip() == NEWEST
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", f"--deselect={KERNEL}"]
    files = [str(repository / "tests" / "unit" / name) for name in TESTS]
    result = subprocess.run([*command, *files], env=environment, cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
