"""Collects what `tests/gpu` and `benchmarks.gpu` need on a CUDA machine without network, beside the torch there.

    .venv/bin/python tools/gpu_bundle.py --python 3.12

The folder `build/gpu-bundle` then holds the sources, wheels in the versions of `constraints.txt`, and `run.py`, which
installs the wheels into a folder beside itself and runs both:

    python3 gpu-bundle/run.py --output figures
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MOST_BYTES = 64 << 20
"""The most bytes of a bundle, which has to be carried to the machine."""
_WHEELS = (
    # The engine; torch, numpy, tokenizers, safetensors, huggingface_hub and psutil are the machine's own.
    *("transformers", "msgspec", "llguidance", "pydantic", "pydantic_core", "annotated-types", "typing-inspection"),
    *("typing_extensions", "accelerate", "liger_kernel"),
    # The tests.
    *("pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist", "execnet", "pluggy", "iniconfig", "Pygments"),
    # The server.
    *("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status", "googleapis-common-protos"),
    *("protobuf", "PyYAML", "rich", "typer", "annotated-doc", "shellingham", "markdown-it-py", "mdurl", "click"),
)
"""The packages that are brought; what else is needed comes with every installation of torch and transformers."""
_PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 40)))
"""Any Linux with at most glibc 2.39; pip takes each only by its exact name."""
_SOURCES = ("abstractllm", "benchmarks", "cli", "clients/python", "server", "tests", "pyproject.toml")


def main() -> None:
    """Makes the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="the machine's version of Python (3.12)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-bundle", help="the folder")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    _download(arguments.output / "wheels", arguments.python)
    _copy_sources(arguments.output / "sources")
    shutil.copy(ROOT / "benchmarks" / "gpu" / "run.py", arguments.output)
    size = sum(path.stat().st_size for path in arguments.output.rglob("*") if path.is_file())
    if size > _MOST_BYTES:
        sys.exit(f"the bundle has {size} bytes, more than {_MOST_BYTES}")
    print(f"{arguments.output}: {size / 1e6:.1f} MB, for Python {arguments.python}")


def _download(folder: Path, python: str) -> None:
    """Downloads the wheels for a version of Python, in the versions of `constraints.txt`."""
    names = {name.lower() for name in _WHEELS}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if re.split(r"==", line)[0].lower() in names]
    if missing := names - {pin.partition("==")[0].lower() for pin in pins}:
        sys.exit(f"constraints.txt pins no {', '.join(sorted(missing))}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    subprocess.run([*command, *pins], check=True)


def _copy_sources(folder: Path) -> None:
    """Copies the files that git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *_SOURCES]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)


if __name__ == "__main__":
    main()
