"""Metrics of calls and of what the server holds, and their names by OpenTelemetry's semantic conventions."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from abstractllm.call_record import CallRecord, UpstreamCall
from abstractllm.errors import OverloadedError, RateLimitedError
from abstractllm.registry import LLMRegistry
from abstractllm.statistics import EngineStatistics
from abstractllm.testing import ScriptedProvider
from abstractllm.types import Usage
from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.llm_measurements import LlmMeasurements
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.metrics import Metrics
from tests.waiting import wait_until

METHOD = "/abstractllm_api.v1.GenerationService/StreamGenerate"
Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(MetricsSettings(), {METHOD}.__contains__)


def samples(metrics: Metrics) -> Samples:
    """Returns the samples that Prometheus reads, by name, each with its labels."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    values: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            values.setdefault(sample.name, []).append((sample.labels, sample.value))
    return values


def one(values: Samples, name: str, **labels: str) -> float:
    """Returns the value of the one sample with these labels."""
    (value,) = (value for names, value in values[name] if labels.items() <= names.items())
    return value


def record(metrics: Metrics, method: str = METHOD, status: str = "OK", **facts: Any) -> CallRecord:
    """Passes a call through the observer."""
    call = CallRecord(method=method)
    metrics.observer.started(call, ())
    call.status = status
    for name, value in facts.items():
        setattr(call, name, value)
    call.ended_at = call.arrived_at + 2.0
    metrics.observer.ended(call)
    return call


def answered(metrics: Metrics, **facts: Any) -> CallRecord:
    """Passes the call of a whole answer of a local model through the observer."""
    local = {"operation": "chat", "llm": "local", "provider": "huggingface", "model": "demo"}
    times = {"queued": 0.5, "prefill": 0.25, "decode": 1.0, "first_token_at": time.monotonic()}
    tokens = {"input_tokens": 7, "output_tokens": 11, "cached_input_tokens": 3, "reasoning_tokens": 2}
    return record(metrics, **(local | times | tokens | facts))


# Calls.


def test_a_call_is_recorded_once_at_its_end(metrics: Metrics) -> None:
    call = CallRecord(method=METHOD)
    metrics.observer.started(call, ())
    method = METHOD.removeprefix("/")
    before = samples(metrics)
    assert one(before, "abstractllm_server_calls_active", rpc_method=method) == 1
    assert "rpc_server_call_duration_seconds_count" not in before
    call.status, call.ended_at = "OK", call.arrived_at + 3
    metrics.observer.ended(call)
    after = samples(metrics)
    assert one(after, "abstractllm_server_calls_active", rpc_method=method) == 0
    labels = {"rpc_method": method, "rpc_response_status_code": "OK", "rpc_system_name": "grpc"}
    assert one(after, "rpc_server_call_duration_seconds_count", **labels) == 1
    assert one(after, "rpc_server_call_duration_seconds_sum", **labels) == pytest.approx(3)


def test_an_answer_has_its_times_and_tokens(metrics: Metrics) -> None:
    answered(metrics)
    values = samples(metrics)
    labels = {
        "abstractllm_llm": "local",
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "huggingface",
        "gen_ai_request_model": "demo",
    }
    sums = {
        "gen_ai_server_request_duration_seconds_sum": 2.0,
        "gen_ai_server_time_per_output_token_seconds_sum": 0.1,
        "abstractllm_server_queue_duration_seconds_sum": 0.5,
        "abstractllm_server_prefill_duration_seconds_sum": 0.25,
        "abstractllm_server_decode_duration_seconds_sum": 1.0,
        "abstractllm_server_tokens_cached_total": 3,
        "abstractllm_server_tokens_reasoning_total": 2,
    }
    for name, total in sums.items():
        ((names, value),) = values[name]
        assert (names, value) == (labels, pytest.approx(total)), name
    assert one(values, "gen_ai_server_time_to_first_token_seconds_count") == 1
    assert one(values, "abstractllm_server_tokens_total", gen_ai_token_type="input") == 7
    assert one(values, "abstractllm_server_tokens_total", gen_ai_token_type="output") == 11


def test_an_answer_that_ended_early_has_its_tokens_and_a_type_of_error(metrics: Metrics) -> None:
    answered(metrics, status="CANCELLED")
    values = samples(metrics)
    assert one(values, "gen_ai_server_request_duration_seconds_count", error_type="CANCELLED") == 1
    assert one(values, "abstractllm_server_tokens_total", gen_ai_token_type="output") == 11
    assert "gen_ai_server_time_to_first_token_seconds_count" not in values
    assert "gen_ai_server_time_per_output_token_seconds_count" not in values


def test_refusals_are_counted_by_reason_and_begin_at_zero(metrics: Metrics) -> None:
    assert one(samples(metrics), "abstractllm_server_refusals_total", error_type="OVERLOADED") == 0
    record(metrics, status="RESOURCE_EXHAUSTED", error=OverloadedError("too much waits"))
    # A hosted LLM's refusal of an answer that had begun is no refusal of the server's.
    answered(metrics, status="RESOURCE_EXHAUSTED", error=RateLimitedError("slow down"))
    # Nor is one before that.
    upstream = [UpstreamCall("gpt", "openai", "gpt")]
    record(metrics, status="RESOURCE_EXHAUSTED", error=RateLimitedError("slow down"), upstream=upstream)
    values = samples(metrics)
    assert one(values, "abstractllm_server_refusals_total", error_type="OVERLOADED") == 1
    assert one(values, "abstractllm_server_refusals_total", error_type="RATE_LIMITED") == 0
    assert "gen_ai_server_request_duration_seconds_count" in values
    assert one(values, "rpc_server_call_duration_seconds_count", error_type="OVERLOADED") == 1


def test_callers_cannot_make_series(metrics: Metrics) -> None:
    for number in range(50):
        record(metrics, method=f"/made.Up/Method{number}", status="UNIMPLEMENTED")
        record(metrics, llm=f"made-up-{number}", status="NOT_FOUND", labels={"key": str(number)}, caller=str(number))
        answered(metrics, labels={f"key{number}": "x", "team": str(number)}, caller=f"caller {number}")
    values = samples(metrics)
    assert {labels["rpc_method"] for labels, _ in values["rpc_server_call_duration_seconds_count"]} == {
        "_OTHER",
        METHOD.removeprefix("/"),
    }
    assert len(values["gen_ai_server_request_duration_seconds_count"]) == 1
    assert "made" not in metrics.render()[0].decode()


def test_labels_and_callers_are_attributes_where_the_operator_says_so() -> None:
    metrics = Metrics(MetricsSettings(labels=("team",), callers=True), {METHOD}.__contains__)
    answered(metrics, labels={"team": "maps", "user": "42"}, caller="backend")
    answered(metrics, caller="backend")
    values = samples(metrics)["gen_ai_server_request_duration_seconds_count"]
    assert [labels["abstractllm_label_team"] for labels, _ in values] == ["maps", ""]
    assert {labels["abstractllm_caller"] for labels, _ in values} == {"backend"}
    assert "42" not in str(values)


def test_what_a_caller_writes_into_a_label_stays_in_its_place() -> None:
    metrics = Metrics(MetricsSettings(labels=("team",)), {METHOD}.__contains__)
    text = 'a"} 1\nforged_total{x="\\\n# TYPE \x00\x1b[2Jé'
    answered(metrics, labels={"team": text})
    values = samples(metrics)
    ((labels, _),) = values["gen_ai_server_request_duration_seconds_count"]
    assert labels["abstractllm_label_team"] == text
    assert "forged_total" not in values


def test_series_have_a_bound_where_labels_make_them() -> None:
    metrics = Metrics(MetricsSettings(labels=("team",)), {METHOD}.__contains__)
    for number in range(600):
        answered(metrics, labels={"team": str(number)})
    text = metrics.render()[0].decode()
    counts = re.findall(r"^gen_ai_server_request_duration_seconds_count\{(.*)\} (\S+)$", text, re.M)
    assert len(counts) == 501
    (rest,) = (float(count) for labels, count in counts if 'otel_metric_overflow="true"' in labels)
    assert rest == 100


def test_each_call_to_a_hosted_llm_is_recorded() -> None:
    metrics = Metrics(MetricsSettings(), {METHOD}.__contains__)
    now = time.monotonic()
    refused = UpstreamCall(
        "gpt", "openai", "m", "api.test", 8443, began_at=now, error_reason="RATE_LIMITED", ended_at=now + 1
    )
    whole = UpstreamCall(
        "claude", "anthropic", "c", began_at=now, first_event_at=now + 0.5, ended_at=now + 4, usage=Usage(5, 9)
    )
    answered(metrics, llm="best", provider="anthropic", model="c", upstream=[refused, whole])
    values = samples(metrics)
    duration = "gen_ai_client_operation_duration_seconds"
    assert one(values, f"{duration}_sum", abstractllm_llm="gpt", error_type="RATE_LIMITED") == pytest.approx(1)
    assert one(values, f"{duration}_sum", server_address="api.test", server_port="8443") == pytest.approx(1)
    assert one(values, f"{duration}_sum", abstractllm_llm="claude", error_type="") == pytest.approx(4)
    assert one(values, "gen_ai_client_operation_time_to_first_chunk_seconds_sum") == pytest.approx(0.5)
    usage = "gen_ai_client_token_usage_sum"
    assert one(values, usage, gen_ai_token_type="input", gen_ai_provider_name="anthropic") == 5
    assert one(values, usage, gen_ai_token_type="output", gen_ai_provider_name="anthropic") == 9
    assert one(values, "gen_ai_server_request_duration_seconds_count", abstractllm_llm="best") == 1


# Measurements.


class _Local(ScriptedProvider):
    """An LLM with engines, as far as metrics see."""

    @property
    def engine_statistics(self) -> EngineStatistics:
        return EngineStatistics(kv_cache_usage=0.25, evictions=4, restarts={"crashed": 2}, weights_bytes=1000)

    @property
    def model_cache_bytes(self) -> dict[str, int]:
        return {"/shared": 500}


def test_llms_are_read_at_the_scrape(metrics: Metrics) -> None:
    metrics.add_source(LlmMeasurements(LLMRegistry({"a": _Local(), "b": _Local(), "hosted": ScriptedProvider()})))
    values = samples(metrics)
    assert one(values, "abstractllm_engine_kv_cache_usage", abstractllm_llm="a") == 0.25
    assert one(values, "abstractllm_engine_evictions_total", abstractllm_llm="b") == 4
    assert one(values, "abstractllm_engine_restarts_total", abstractllm_llm="a", abstractllm_reason="crashed") == 2
    assert one(values, "abstractllm_engine_memory_bytes", abstractllm_llm="a", abstractllm_kind="weights") == 1000
    assert one(values, "abstractllm_llm_ready", abstractllm_llm="hosted", gen_ai_provider_name="scripted") == 1
    assert one(values, "abstractllm_llm_requests", abstractllm_llm="hosted", abstractllm_state="running") == 0
    assert {labels["abstractllm_llm"] for labels, _ in values["abstractllm_engine_steps_total"]} == {"a", "b"}
    # Both LLMs keep their models in one folder.
    assert one(values, "abstractllm_model_cache_size_bytes") == 500


def test_a_disk_that_hangs_holds_up_no_metric(metrics: Metrics) -> None:
    is_back = threading.Event()

    class Hanging(_Local):
        @property
        def model_cache_bytes(self) -> dict[str, int]:
            is_back.wait()
            return {"/shared": 700}

    metrics.add_source(LlmMeasurements(LLMRegistry({"a": Hanging()})))
    for _ in range(2):
        values = samples(metrics)
        assert "abstractllm_llm_ready" in values and "abstractllm_model_cache_size_bytes" not in values
    is_back.set()
    wait_until(lambda: samples(metrics).get("abstractllm_model_cache_size_bytes") == [({}, 700.0)])


def test_an_llm_that_fails_takes_none_of_the_others_along(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ScriptedProvider):
        @property
        def queued(self) -> int:
            raise RuntimeError("no number")

    metrics.add_source(LlmMeasurements(LLMRegistry({"bad": Failing(), "good": ScriptedProvider()})))
    for _ in range(2):
        values = samples(metrics)
        assert [labels["abstractllm_llm"] for labels, _ in values["abstractllm_llm_ready"]] == ["good"]
        assert "abstractllm_model_cache_size_bytes" in values
    assert [record.getMessage() for record in caplog.records] == ["the metrics of LLM bad cannot be read"]


def test_a_source_that_fails_takes_none_of_the_others_along(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    metrics.add_source(lambda: [Measurement("abstractllm.server.connections", 3)])
    metrics.add_source(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    metrics.add_source(lambda: [Measurement("abstractllm.server.loop.lag", 0.5, {"made": "up"})])
    metrics.add_source(lambda: [Measurement("abstractllm.server.held", 7, {"direction": "request"})])
    for _ in range(2):
        values = samples(metrics)
        assert one(values, "abstractllm_server_connections") == 3
        assert one(values, "abstractllm_server_held_bytes", abstractllm_direction="request") == 7
        assert one(values, "process_memory_usage_bytes") > 2**20
    assert caplog.text.count("ZeroDivisionError") == 1
    assert "abstractllm.server.loop.lag has no attribute abstractllm.made" in caplog.text


def test_scrapes_at_the_same_time_are_whole(metrics: Metrics) -> None:
    answered(metrics)
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(metrics.render()[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [re.findall(r"^# TYPE (\S+)", body.decode(), re.M) for body in bodies]
    assert len(bodies) == 8 and all(sorted(each) == sorted(set(each)) == sorted(names[0]) for each in names)


def test_openmetrics_is_told_where_it_is_asked_for(metrics: Metrics) -> None:
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and body.endswith(b"# EOF\n")
