"""The names of metrics: those of the semantic conventions where these have one, and all of them on their page."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating import attributes as convention_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics, process_metrics, rpc_metrics
from prometheus_client.parser import text_string_to_metric_families

from abstractllm.call_record import UpstreamCall
from abstractllm.types import Usage
from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.instruments import ATTRIBUTES, INSTRUMENTS, Kind
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.metrics import Metrics
from abstractllm_server.telemetry.process_measurements import process_measurements
from tests.unit.test_metrics import METHOD, answered
from tools.metrics_page import PAGE, emit, prometheus_label, prometheus_name

_KINDS = {
    "create_histogram": {Kind.HISTOGRAM},
    "create_counter": {Kind.COUNTER, Kind.OBSERVED_COUNTER},
    "create_up_down_counter": {Kind.OBSERVED_SUM},
    "create_observable_gauge": {Kind.OBSERVED_GAUGE},
}
_GEN_AI = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}
_REQUIRED = {
    "gen_ai.server.request.duration": _GEN_AI | {"error.type"},
    "gen_ai.server.time_to_first_token": _GEN_AI,
    "gen_ai.server.time_per_output_token": _GEN_AI,
    "gen_ai.client.operation.duration": _GEN_AI | {"error.type"},
    "gen_ai.client.operation.time_to_first_chunk": _GEN_AI,
    "gen_ai.client.token.usage": _GEN_AI | {"gen_ai.token.type"},
    "rpc.server.call.duration": {"rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"},
    "process.cpu.time": {"cpu.mode"},
}
"""The attributes that the registry requires, always or where they apply."""
_OPTIONAL = {"server.address", "server.port"}
"""Those that it recommends, and that are known here."""


class _Meter:
    """Notes the instruments that the conventions' own functions make."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, dict[str, Any]]] = {}

    def __getattr__(self, kind: str) -> Any:
        return lambda **facts: self.made.update({facts["name"]: (kind, facts)})


def convention_instruments() -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns the instruments of the conventions: name, kind, unit and description."""
    meter = _Meter()
    for module in (gen_ai_metrics, rpc_metrics, process_metrics):
        for name, make in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("create_"):
                arguments = [meter, None][: len(inspect.signature(make).parameters)]
                make(*arguments)
    return meter.made


def convention_attribute_names() -> set[str]:
    """Returns the names of all attributes of the conventions."""
    names: set[str] = set()
    for info in pkgutil.iter_modules(convention_attributes.__path__):
        module = importlib.import_module(f"{convention_attributes.__name__}.{info.name}")
        names |= {value for value in vars(module).values() if isinstance(value, str)}
    return names


def test_names_units_and_meanings_are_those_of_the_conventions() -> None:
    conventions = convention_instruments()
    conventional = [instrument for instrument in INSTRUMENTS.values() if not instrument.name.startswith("abstractllm.")]
    assert len(conventional) > 10
    for instrument in conventional:
        kind, facts = conventions[instrument.name]
        assert instrument.kind in _KINDS[kind], instrument.name
        assert (instrument.unit, instrument.description) == (facts["unit"], facts["description"])


def test_attributes_are_those_of_the_conventions() -> None:
    names = convention_attribute_names()
    for name in ATTRIBUTES:
        assert name.startswith("abstractllm.") or name in names
    for instrument in INSTRUMENTS.values():
        assert set(instrument.attributes) <= set(ATTRIBUTES)
        if not instrument.name.startswith("abstractllm."):
            conventional = {name for name in instrument.attributes if not name.startswith("abstractllm.")}
            assert conventional - _OPTIONAL == _REQUIRED.get(instrument.name, set()), instrument.name


def test_histograms_have_the_bounds_that_the_conventions_advise() -> None:
    operation = tuple(0.01 * 2**power for power in range(14))
    tokens = tuple(4**power for power in range(14))
    first = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    each = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
    assert INSTRUMENTS["gen_ai.server.request.duration"].buckets == pytest.approx(operation)
    assert INSTRUMENTS["gen_ai.client.operation.duration"].buckets == pytest.approx(operation)
    assert INSTRUMENTS["gen_ai.client.token.usage"].buckets == tokens
    assert INSTRUMENTS["gen_ai.server.time_to_first_token"].buckets == first
    assert INSTRUMENTS["gen_ai.server.time_per_output_token"].buckets == each
    assert all(bool(item.buckets) == (item.kind is Kind.HISTOGRAM) for item in INSTRUMENTS.values())


def test_the_conventions_are_pinned(repository: Path) -> None:
    pinned = version("opentelemetry-semantic-conventions")
    assert f"opentelemetry-semantic-conventions=={pinned}\n" in (repository / "constraints.txt").read_text()
    assert f"`opentelemetry-semantic-conventions` {pinned} " in (repository / PAGE).read_text("utf-8")


# The page.


def test_the_page_has_every_metric(repository: Path) -> None:
    assert emit(repository) == {PAGE: (repository / PAGE).read_text("utf-8")}, "run: make generate"


def test_the_names_on_the_page_are_those_that_prometheus_reads() -> None:
    metrics = Metrics(MetricsSettings(), {METHOD}.__contains__)
    answered(metrics, upstream=[UpstreamCall("gpt", "openai", "m", usage=Usage(1, 2), first_event_at=1, ended_at=2)])
    observed = (Kind.OBSERVED_COUNTER, Kind.OBSERVED_GAUGE, Kind.OBSERVED_SUM)
    of_process = {measurement.name for measurement in process_measurements()}
    metrics.add_source(
        lambda: [
            Measurement(item.name, 1, dict.fromkeys(item.attributes, "x"))
            for item in INSTRUMENTS.values()
            if item.kind in observed and item.name not in of_process
        ]
    )
    families = {family.name: family for family in text_string_to_metric_families(metrics.render()[0].decode())}
    for instrument in INSTRUMENTS.values():
        family = families[prometheus_name(instrument).removesuffix("_total")]
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels <= set(map(prometheus_label, instrument.attributes)), instrument.name
