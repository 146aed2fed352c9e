"""The time from the server's start to its first health answer, and to the demo model's first token.

.venv/bin/python -m benchmarks.start [--times 5]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from abstractllm_client import RemoteLLM
from benchmarks.results import Results, Target, figure, positive, rounds, run, versions

_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 120.0


def start_once(folder: Path) -> tuple[float, float, float]:
    """Starts a server and ends it again.

    Returns:
        Seconds to the liveness service's SERVING, to readiness (the default LLM can answer), and to the first token of
        an answer that was asked for as soon as the server could be reached.

    Raises:
        RuntimeError: If the server ends, or takes too long.
    """
    log = folder / "log"
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--port", "0"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as server:
        start = time.perf_counter()
        try:
            address = ""
            while not address:
                if server.poll() is not None or time.perf_counter() - start > _PATIENCE_SECONDS:
                    raise RuntimeError(log.read_text("utf-8"))
                if announcement := re.search(r"listening on (\S+)", log.read_text("utf-8")):
                    address = announcement[1]
                time.sleep(_POLL_SECONDS / 10)
            with grpc.insecure_channel(address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                live = _until_serving(health, "liveness", start)
                with RemoteLLM(address) as llm:
                    pieces = iter(llm.generate("What is the capital of France?", stream=True, temperature=0))
                    next(pieces)
                    first_token = time.perf_counter() - start
                ready = _until_serving(health, "", start)
            return live, ready, first_token
        finally:
            server.terminate()
            server.wait(_PATIENCE_SECONDS)


def _until_serving(health: health_pb2_grpc.HealthStub, service: str, start: float) -> float:
    serving = health_pb2.HealthCheckResponse.SERVING
    while health.Check(health_pb2.HealthCheckRequest(service=service), wait_for_ready=True).status != serving:
        if time.perf_counter() - start > _PATIENCE_SECONDS:
            raise RuntimeError(f"{service!r} is not serving")
        time.sleep(_POLL_SECONDS)
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> Results:
    """Starts the server some times."""
    with tempfile.TemporaryDirectory() as folder:
        starts = [start_once(Path(folder)) for _ in rounds(options.times)]
    live, ready, first_token = (list(values) for values in zip(*starts, strict=True))
    table = "Start of the server"
    return Results(
        [
            figure(table, "to the health answer", "s", live, target=Target(most=1.0)),
            figure(table, "to readiness", "s", ready),
            figure(table, "to the demo model's first token", "s", first_token, target=Target(most=10.0)),
        ],
        versions("abstractllm-grpc", "grpcio", "torch", "transformers"),
    )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.start", description="Measure how long the server takes to start.")
    parser.add_argument("--times", type=positive, default=5, help="how often it is started (5)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
