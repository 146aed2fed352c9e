"""The cost of observing: streaming throughput with metrics, traces and logs all switched on, over that with none.

    .venv/bin/python -m benchmarks.observability [--rounds 7] [--clients 64]

Two servers of the same model run from the start to the end, and are measured in turn, each round in the other order.
The one has no more than its log at `warning`; the other writes a JSON line for each call, sends the spans of all calls
and its metrics to a collector in a process of its own, and has its `/metrics`, with callers as labels, read every
second.
Calls are short and many, so that what is done once a call weighs most: `--tokens` makes them longer.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import free_port
from benchmarks.results import Figure, Results, Target, figure, positive, rounds, run, versions
from benchmarks.serving.model import build_model
from benchmarks.serving.systems import ROOT, System, ours
from benchmarks.serving.workload import Figures, Workload

_READ_INTERVAL = 1.0
"""Seconds between two reads of `/metrics`: Prometheus usually leaves fifteen or more."""
_COLLECTOR = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces, trace_service_pb2_grpc

class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    spans = 0
    def Export(self, request, context):
        Traces.spans += sum(len(scope.spans) for one in request.resource_spans for scope in one.scope_spans)
        return traces.ExportTraceServiceResponse()

class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        return metrics.ExportMetricsServiceResponse()

server = grpc.server(ThreadPoolExecutor(2))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
print(Traces.spans, flush=True)
"""


def measure(options: argparse.Namespace) -> Results:
    """Measures both servers in turn.

    Raises:
        RuntimeError: If spans are missing.
    """
    workload = Workload(options.clients, options.answers, new_tokens=options.tokens)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        off = stack.enter_context(
            _server(Path(folder, "off"), {"log_level": "warning", "listen": f"127.0.0.1:{free_port()}"}, {})
        )
        port, spans = stack.enter_context(_collector())
        monitoring = f"127.0.0.1:{free_port()}"
        keys = {"log_format": "json", "monitoring": monitoring, "metrics": {"callers": True}}
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_TRACES_SAMPLER": "always_on",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        }
        on = stack.enter_context(_server(Path(folder, "on"), keys, environment))
        stack.enter_context(_reading(f"http://{monitoring}/metrics"))
        pairs = _measure(off, on, workload, options.rounds)
        if (sent := spans()) < len(pairs) * options.clients * options.answers:
            raise RuntimeError(f"the collector got {sent} spans")
    return Results(
        list(_figures(pairs, options)), versions("abstractllm-grpc", "grpcio", "opentelemetry-sdk", "prometheus_client")
    )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.observability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--clients", type=positive, default=64)
    parser.add_argument("--answers", type=positive, default=4, help="of each client in a round")
    parser.add_argument("--tokens", type=positive, default=32, help="of each answer")
    return run(parser, measure)


def _measure(off: System, on: System, workload: Workload, count: int) -> list[tuple[Figures, Figures]]:
    pairs = []
    for number in rounds(count + 1, 2):  # the first warms up
        salted = dataclasses.replace(workload, salt=number)
        if number % 2:
            one, other = off.run(salted), on.run(salted)
        else:
            other, one = on.run(salted), off.run(salted)
        if number:
            pairs.append((one, other))
    return pairs


def _figures(pairs: list[tuple[Figures, Figures]], options: argparse.Namespace) -> Iterator[Figure]:
    table = f"{options.clients} clients, answers of {options.tokens} tokens"
    for name, unit, field, target in (
        ("tokens a second", "tokens/s", "tokens_per_second", Target(least=0.95, of="ratio")),
        ("first token", "ms", "first_token_ms", None),
        ("CPU of the server for a token", "ms", "cpu_ms_per_token", None),
    ):
        off = [float(getattr(one, field) or 0.0) for one, _ in pairs]
        on = [float(getattr(one, field) or 0.0) for _, one in pairs]
        yield figure(table, f"{name}, nothing observed", unit, off)
        yield figure(table, f"{name}, everything observed", unit, on, over=off, to="nothing observed", target=target)


@contextmanager
def _server(folder: Path, keys: dict[str, Any], environment: dict[str, str]) -> Iterator[System]:
    build_model(folder)
    # Neither log says in plain words where the server listens.
    keys = {"listen": f"127.0.0.1:{free_port()}", **keys}
    with ours(folder, threads=1, server_keys=keys, environment=environment) as system:
        yield system


@contextmanager
def _collector() -> Iterator[tuple[int, Any]]:
    """Runs a collector; yields its port, and a function that ends it and returns the number of spans that came."""
    collector = subprocess.Popen(
        [sys.executable, "-c", _COLLECTOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    assert collector.stdin is not None and collector.stdout is not None

    def end() -> int:
        return int(collector.communicate()[0])

    try:
        yield int(collector.stdout.readline()), end
    finally:
        collector.kill()
        collector.wait()


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Reads a page again and again, in a thread."""
    stopped = threading.Event()

    def read() -> None:
        while not stopped.wait(_READ_INTERVAL):
            with urllib.request.urlopen(url, timeout=10) as page:
                page.read()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
