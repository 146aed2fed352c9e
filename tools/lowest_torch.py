"""Runs the tests of the batch loop on a CPU with the lowest version of PyTorch that the package allows.

    .venv/bin/python -m tools.lowest_torch

It is installed into a folder beside the environment's own, 600 MB the first time; everything else is the environment's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FOLDER = ROOT / "build" / "lowest-torch"
_TESTS = (
    *("test_architectures.py", "test_attention.py", "test_batch_sizes.py", "test_batching.py", "test_cuda_graphs.py"),
    *("test_fused_kernels.py", "test_logprobs.py", "test_paged_decode.py", "test_quantization.py", "test_sampler.py"),
    *(
        "test_sampler_operations.py",
        "test_step_pipeline.py",
        "test_transformers_seams.py",
        "faults/test_memory_faults.py",
    ),
)
"""Those under `tests/unit` that depend on PyTorch most."""
_KERNEL = "tests/unit/test_paged_decode.py::test_each_new_token_attends_to_its_sequence_and_is_put_into_the_cache"
"""The interpreter of this version's Triton fails with the NumPy of today; `tests/gpu` tries the compiled kernel."""


def main() -> None:
    """Installs what is missing, and runs the tests."""
    wanted = _lowest()
    installed = _installed("torch")
    if installed is None or installed.partition("+")[0] != wanted:
        _install(f"torch=={wanted}")
        # Kernels are compiled by the version of Triton that PyTorch was built with.
        _install(*(re.split(r"\s*;", line)[0] for line in _requirements() if line.startswith("triton==")))
    environment = {**os.environ, "PYTHONPATH": str(_FOLDER), "OMP_NUM_THREADS": "1"}
    imported = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    version = subprocess.check_output(imported, env=environment, text=True).strip()
    if version.partition("+")[0] != wanted:
        sys.exit(f"torch is {version}, and not {wanted}")
    print(f"with torch {version}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--deselect={_KERNEL}", *sys.argv[1:]]
    command += [str(ROOT / "tests" / "unit" / name) for name in _TESTS]
    sys.exit(subprocess.run(command, env=environment, cwd=ROOT).returncode)


def _lowest() -> str:
    """Returns the lowest version that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (line,) = [line for line in project["optional-dependencies"]["huggingface"] if line.startswith("torch>=")]
    return f"{line.removeprefix('torch>=')}.0"


def _installed(name: str) -> str | None:
    versions = {each.name: each.version for each in distributions(path=[str(_FOLDER)])}
    return versions.get(name)


def _requirements() -> list[str]:
    (torch,) = [each for each in distributions(path=[str(_FOLDER)]) if each.name == "torch"]
    return torch.requires or []


def _install(*requirements: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--upgrade", "--target", str(_FOLDER), *requirements]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
