"""Metrics as OpenTelemetry keeps them: read by Prometheus from `/metrics`, or sent by OTLP.

This module imports OpenTelemetry's SDK, which takes a while: it is imported where metrics are switched on. Numbers that
live elsewhere (how much runs, waits, is held) are read when they are wanted, and never written on the way of a call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.call_metrics import CallMetrics
from abstractllm_server.telemetry.instruments import INSTRUMENTS, Instrument, Kind
from abstractllm_server.telemetry.measurements import MeasurementSource
from abstractllm_server.telemetry.otel import counting_sdk, resource
from abstractllm_server.telemetry.process_measurements import process_measurements

__all__ = ["Metrics"]

logger = logging.getLogger("abstractllm.server")

_SCOPE = "abstractllm"
_MAX_SERIES = 500
"""Combinations of attributes that a histogram keeps apart: of two thousand, each with its buckets, a scrape would bring
50 MB, and take three seconds that the event loop needs."""
_FIRST_OBSERVED = next(
    name for name, instrument in INSTRUMENTS.items() if instrument.kind not in (Kind.HISTOGRAM, Kind.COUNTER)
)
_CLOSING_MILLISECONDS = 500
"""The time in which the last metrics must be sent, part of the second that a stopping server has."""


class Metrics:
    """All metrics of one server.

    Args:
        settings: The choice of labels and callers as attributes.
        is_method: Tells whether there is a method `/package.Service/Method`.
        exporter: Sends metrics in an interval, besides; None to offer them to Prometheus alone.
    """

    def __init__(
        self, settings: MetricsSettings, is_method: Callable[[str], bool], exporter: MetricExporter | None = None
    ) -> None:
        self._sources = _Sources()
        self._registry = CollectorRegistry()
        self._render_lock = threading.Lock()
        prometheus = PrometheusMetricReader(
            scope_info_enabled=False, registry=self._registry, cardinality_limits={Histogram: _MAX_SERIES}
        )
        readers: list[MetricReader] = [prometheus]
        if exporter is not None:
            # In an interval (`OTEL_METRIC_EXPORT_INTERVAL`), from a thread of its own.
            readers.append(PeriodicExportingMetricReader(exporter, cardinality_limits={Histogram: _MAX_SERIES}))
        with counting_sdk():
            self._provider = MeterProvider(
                readers,
                resource(),
                # An exemplar would cost each record a lookup of the current span.
                exemplar_filter=AlwaysOffExemplarFilter(),
                shutdown_on_exit=False,
            )
        histograms, counters = self._make_instruments()
        self.observer = CallMetrics(histograms, counters, settings, is_method)
        """Is told of each call."""
        self.add_source(self.observer.measurements)
        self.add_source(process_measurements)

    def add_source(self, source: MeasurementSource) -> None:
        """Adds a source of measurements, which is read for each scrape."""
        self._sources.add(source)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Returns the metrics as Prometheus reads them, from any thread.

        Args:
            accept: The value of the header `Accept`, which decides between Prometheus' text and OpenMetrics.

        Returns:
            The text, and its content type.
        """
        encode, content_type = choose_encoder(accept)
        with self._render_lock:  # the reader keeps one collection at a time
            return encode(self._registry), content_type

    def close(self) -> None:
        """Sends the last metrics, if they are sent; waits for half a second at most."""
        self._provider.shutdown(timeout_millis=_CLOSING_MILLISECONDS)

    def _make_instruments(self) -> tuple[dict[str, Any], dict[str, Any]]:
        meter = self._provider.get_meter(_SCOPE)
        histograms: dict[str, Any] = {}
        counters: dict[str, Any] = {}
        for name, instrument in INSTRUMENTS.items():
            facts: Any = {"name": name, "unit": instrument.unit, "description": instrument.description}
            observe = [partial(self._sources.observe, name)]
            match instrument.kind:
                case Kind.HISTOGRAM:
                    buckets = instrument.buckets
                    histograms[name] = meter.create_histogram(explicit_bucket_boundaries_advisory=buckets, **facts)
                case Kind.COUNTER:
                    counters[name] = meter.create_counter(**facts)
                case Kind.OBSERVED_COUNTER:
                    meter.create_observable_counter(callbacks=observe, **facts)
                case Kind.OBSERVED_SUM:
                    meter.create_observable_up_down_counter(callbacks=observe, **facts)
                case Kind.OBSERVED_GAUGE:
                    meter.create_observable_gauge(callbacks=observe, **facts)
        return histograms, counters


class _Sources:
    """The sources of measurements, and the values that they had when they were last read.

    The SDK collects one instrument after the other, in the order in which they were made, and one collection at a time:
    with the first one all sources are read, so that the numbers of a collection belong together.
    """

    def __init__(self) -> None:
        self._sources: list[MeasurementSource] = []
        self._values: Mapping[str, list[Observation]] = {}
        self._faulty: set[MeasurementSource] = set()

    def add(self, source: MeasurementSource) -> None:
        """Adds a source."""
        self._sources.append(source)

    def _read(self) -> None:
        """Reads all sources; one that fails is left out, and the first time that it fails is logged."""
        values: dict[str, list[Observation]] = {}
        for source in tuple(self._sources):
            try:
                for measurement in source():
                    instrument = INSTRUMENTS[measurement.name]
                    observation = Observation(measurement.value, _attributes(instrument, measurement.attributes))
                    values.setdefault(measurement.name, []).append(observation)
            except Exception:
                if source not in self._faulty:
                    self._faulty.add(source)
                    logger.exception("some metrics cannot be read")
        self._values = values

    def observe(self, name: str, options: CallbackOptions) -> Iterable[Observation]:
        """Returns the values of one instrument; called by the SDK."""
        if name == _FIRST_OBSERVED:
            self._read()
        return self._values.get(name, ())


def _attributes(instrument: Instrument, attributes: Mapping[str, str]) -> dict[str, str]:
    """Returns the full names of a measurement's attributes, which may be given without their prefix.

    Raises:
        KeyError: If the instrument has no such attribute.
    """
    named = {key if "." in key else f"abstractllm.{key}": value for key, value in attributes.items()}
    if unknown := named.keys() - set(instrument.attributes):
        raise KeyError(f"{instrument.name} has no attribute {min(unknown)}")
    return named
