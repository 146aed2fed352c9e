"""The switch of traces: where nobody asks for them, nothing of OpenTelemetry is imported, made or called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from abstractllm_server.telemetry.otel import sends
from abstractllm_server.telemetry.otel_variables import naming_variables

if TYPE_CHECKING:  # importing OpenTelemetry's SDK takes a fifth of a second
    from abstractllm_server.telemetry.spans import Traces

__all__ = ["start_traces"]


def start_traces(is_method: Callable[[str], bool]) -> Traces | None:
    """Starts traces, if OpenTelemetry's variables say that they are sent, and where.

    Sampling, limits and the exporter's connection follow the usual variables: `OTEL_TRACES_SAMPLER`,
    `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_EXPORTER_OTLP_HEADERS` and the like.

    Args:
        is_method: Tells whether there is a method `/package.Service/Method`.

    Returns:
        The observer of calls; None if nobody wants traces.

    Raises:
        ConfigurationError: If one of the variables asks for something that there is not.
    """
    if not sends("traces"):
        return None
    with naming_variables("traces"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        from abstractllm_server.telemetry.spans import Traces

        return Traces(OTLPSpanExporter(), is_method)
