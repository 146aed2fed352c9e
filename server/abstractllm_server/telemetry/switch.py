"""The switch of metrics: where nobody asks for them, nothing of them is imported, made or called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.otel import sends
from abstractllm_server.telemetry.otel_variables import naming_variables

if TYPE_CHECKING:  # importing OpenTelemetry's SDK takes a fifth of a second
    from opentelemetry.sdk.metrics.export import MetricExporter

    from abstractllm_server.telemetry.metrics import Metrics

__all__ = ["start_metrics"]


def start_metrics(settings: MetricsSettings, is_method: Callable[[str], bool], *, is_scraped: bool) -> Metrics | None:
    """Starts metrics, if they are wanted: somebody reads them from this process, or they are sent by OTLP.

    Args:
        settings: The choice of labels and callers as attributes.
        is_method: Tells whether there is a method `/package.Service/Method`.
        is_scraped: True if `/metrics` is served.

    Returns:
        The metrics; None if nobody wants them.

    Raises:
        ConfigurationError: If one of OpenTelemetry's variables asks for something that there is not.
    """
    is_sent = sends("metrics")
    if not (is_scraped or is_sent):
        return None
    with naming_variables("metrics"):
        from abstractllm_server.telemetry.metrics import Metrics

        return Metrics(settings, is_method, _otlp_exporter() if is_sent else None)


def _otlp_exporter() -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()
