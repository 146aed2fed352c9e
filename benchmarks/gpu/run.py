"""Runs `tests/gpu` and `benchmarks.gpu` from a bundle, on a machine with torch, and without network.

    python3 run.py --output figures

Lies in the bundle beside the folders `sources` and `wheels`. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent
_SOURCES = (".", "server", "cli", "clients/python/src", "clients/python/gen")
"""The folders of the sources from which packages are imported."""


def main() -> None:
    """Installs the wheels beside this file, runs both, and ends with an error if one of them does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("figures"), help="the folder of the figures")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--test-seconds", type=float, default=180, help="the longest time of the tests; 0 leaves them out"
    )
    parser.add_argument("--seconds", type=float, default=260, help="no measurement begins after this time")
    parser.add_argument("benchmark", nargs="*", help="further arguments of benchmarks.gpu, after --")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    environment = _install()
    failures = 0
    if arguments.test_seconds:
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu", "--device", arguments.device]
        command += [f"--junitxml={output / 'tests.xml'}", "--tb=short", "-rA", "--show-capture=no"]
        failures += _run("tests", command, environment, output, arguments.test_seconds)
    command = ["-m", "benchmarks.gpu", "--device", arguments.device, "--json", str(output / "figures.json")]
    command += ["--seconds", str(arguments.seconds), *arguments.benchmark]
    failures += _run("benchmark", command, environment, output, arguments.seconds + 120)
    sys.exit(1 if failures else 0)


def _install() -> dict[str, str]:
    """Installs the wheels; returns the environment in which they, and the sources, are imported."""
    folder = BUNDLE / "packages"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
        command += [
            "--disable-pip-version-check",
            "--target",
            str(folder),
            *map(str, (BUNDLE / "wheels").glob("*.whl")),
        ]
        subprocess.run(command, check=True)
    paths = [folder, *(BUNDLE / "sources" / name for name in _SOURCES)]
    path = os.pathsep.join(str(each.resolve()) for each in paths)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def _run(name: str, command: list[str], environment: dict[str, str], output: Path, seconds: float) -> int:
    """Runs a command, whose output is shown and kept; returns 1 if it fails or takes too long."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=BUNDLE / "sources",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        watch = subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep({seconds}); os.killpg({process.pid}, 9)"]
        )
        assert process.stdout is not None
        with (output / f"{name}.log").open("w") as log:
            for line in process.stdout:
                print(line, end="", flush=True)
                log.write(line)
                log.flush()
        watch.kill()
        watch.wait()
    print(f"{name}: {time.monotonic() - began:.0f} s, exit status {process.returncode}", flush=True)
    return int(process.returncode != 0)


if __name__ == "__main__":
    main()
