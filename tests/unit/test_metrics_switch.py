"""Metrics are on where they are read or sent, and cost nothing where they are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent import futures
from importlib.metadata import version
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from abstractllm.errors import ConfigurationError
from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.instruments import INSTRUMENTS
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.otel import sends
from abstractllm_server.telemetry.switch import start_metrics
from tests.unit.test_metrics import METHOD, answered


def test_nothing_is_imported_where_metrics_are_off() -> None:
    code = (
        "import sys, abstractllm_server.app\n"
        "from abstractllm_server.telemetry.switch import start_metrics\n"
        "from abstractllm_server.settings import MetricsSettings\n"
        "assert start_metrics(MetricsSettings(), set().__contains__, is_scraped=False) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])\n"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize(
    ("variables", "is_sent"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "unix:///run/collector.sock"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
    ],
)
def test_the_usual_variables_decide(variables: dict[str, str], is_sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sends("metrics") is is_sent


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_METRICS_EXPORTER": "console"},
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"},
    ],
)
def test_a_variable_that_asks_for_more_is_a_fault(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"environment variable {list(variables)[-1]} "):
        sends("metrics")


BAD = {
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("soon", "-1", "0", "inf", "nan"),
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": ("10s",),
    "OTEL_METRIC_EXPORT_INTERVAL": ("each minute", "0", "-5"),
    "OTEL_METRIC_EXPORT_TIMEOUT": ("none",),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("zip",),
    "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": ("none",),
    "OTEL_EXPORTER_OTLP_INSECURE": ("1",),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("/not/there.pem", "/"),
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY": ("/not/there.key",),
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ("collector", "ftp://c:4317", "http://c:port", "http://:4317", "http://a b"),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_garbage_is_refused_at_the_start_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"environment variable {name} must be .* got '{value}'") as caught:
        start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=True)
    assert caught.value.field == name


def test_what_only_the_sdk_knows_to_be_garbage_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "SOMETIMES")
    with pytest.raises(ConfigurationError, match=r"metrics cannot be started: .* OTEL_\* .*SOMETIMES"):
        start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=True)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "OTEL_METRIC_EXPORT_INTERVAL"):
        monkeypatch.setenv(name, " ")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    metrics = start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=False)
    assert metrics is not None
    metrics.close()


def test_what_is_not_to_be_sent_can_still_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    metrics = start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=True)
    assert metrics is not None
    answered(metrics)
    assert b"\ngen_ai_server_request_duration_seconds_count" in metrics.render()[0]
    assert os.environ["OTEL_SDK_DISABLED"] == "true"


class _Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 # the name in the contract
        self.requests.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def test_metrics_are_sent_by_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = _Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        metrics = start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=False)
        assert metrics is not None
        metrics.add_source(lambda: [Measurement("abstractllm.server.connections", 3)])
        answered(metrics)
        metrics.close()
    finally:
        server.stop(None)
    (resource,) = collector.requests[-1].resource_metrics
    facts = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert facts["service.name"] == "abstractllm" and facts["service.version"] == version("abstractllm-grpc")
    sent = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    (point,) = sent["gen_ai.server.request.duration"].histogram.data_points
    assert point.count == 1 and list(point.explicit_bounds) == list(
        INSTRUMENTS["gen_ai.server.request.duration"].buckets
    )
    assert sent["abstractllm.server.connections"].sum.data_points[0].as_int == 3


def test_a_collector_that_is_not_there_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    metrics = start_metrics(MetricsSettings(), {METHOD}.__contains__, is_scraped=True)
    assert metrics is not None
    answered(metrics)
    began = time.monotonic()
    metrics.close()
    assert time.monotonic() - began < 5
