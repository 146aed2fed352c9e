"""The time that it takes to import the Python client, each time in a process of its own.

    .venv/bin/python -m benchmarks.client_import

Each round imports `grpc` alone, the client's largest dependency, and then the client, so that the client's own part can
be seen. The first process of each module compiles its files and is not counted.
"""

import argparse
import subprocess
import sys

from benchmarks.results import Results, Target, figure, positive, rounds, run, versions

TARGET = 0.25
"""Seconds that `import abstractllm_client` may take."""
CLIENT = "abstractllm_client"
MODULES = ("grpc", CLIENT)
MEASURE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """Returns the seconds that a fresh process takes for the import, its own start not counted."""
    command = [sys.executable, "-c", MEASURE.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(options: argparse.Namespace) -> Results:
    """Imports each module in turn, in every round."""
    for module in MODULES:
        seconds(module)
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in rounds(options.rounds):
        for module in MODULES:
            times[module].append(seconds(module))
    table = "Import in a fresh process"
    return Results(
        [
            figure(table, MODULES[0], "s", times[MODULES[0]]),
            figure(
                table, CLIENT, "s", times[CLIENT], over=times[MODULES[0]], to=MODULES[0], target=Target(most=TARGET)
            ),
        ],
        versions("abstractllm-client", "grpcio", "protobuf"),
    )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.client_import", description="Measure the import of the Python client."
    )
    parser.add_argument("--rounds", type=positive, default=15, help="processes for each module (15)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
