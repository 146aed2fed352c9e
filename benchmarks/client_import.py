"""The time that it takes to import the Python client, each time in a process of its own.

    .venv/bin/python -m benchmarks.client_import

Each round imports `grpc` alone, the client's largest dependency, and then the client, so that the client's own part can
be seen. The first process of each module compiles its files and is not counted.
"""

import argparse
import statistics
import subprocess
import sys

TARGET = 0.25
"""Seconds that `import abstractllm_client` may take."""
MODULES = ("grpc", "abstractllm_client")
MEASURE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """Returns the seconds that a fresh process takes for the import, its own start not counted."""
    command = [sys.executable, "-c", MEASURE.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status: 1 where the target is missed.
    """
    parser = argparse.ArgumentParser(description="Measure the import of the Python client.")
    parser.add_argument("--rounds", type=int, default=15, help="processes for each module")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds must be at least 1, got {rounds}")
    for module in MODULES:
        seconds(module)
    times_by_module: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(rounds):
        for module in MODULES:
            times_by_module[module].append(seconds(module))
    for module, times in times_by_module.items():
        print(f"{module:20} median {statistics.median(times):.3f} s, least {min(times):.3f} s, most {max(times):.3f} s")
    met = statistics.median(times_by_module["abstractllm_client"]) < TARGET
    print(f"{'target':20} median under {TARGET} s: {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
