"""The metrics of a running server: every one that is documented is there, and counts what clients see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml
from grpc import aio
from grpc_health.v1 import health_pb2
from prometheus_client.parser import text_string_to_metric_families

from abstractllm.errors import RateLimitedError
from abstractllm.providers.fallback import FallbackProvider
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.testing import ScriptedProvider
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_api.v1 import generation_pb2_grpc
from abstractllm_server.telemetry.instruments import INSTRUMENTS, Kind
from tests.promql import parse
from tests.providers.openai_server import asking, saying
from tests.server.certificates import Authority
from tests.server.local import ENDLESS
from tests.server.support import HANG, Serving, request, serving
from tests.server.test_auth import line
from tests.unit.test_alert_rules import TARGET_LABELS, dashboard_queries
from tests.unit.tiny_models import build
from tests.waiting import until
from tools.metrics_page import prometheus_label, prometheus_name

GENERATE = "abstractllm_api.v1.GenerationService/Generate"
STREAM = "abstractllm_api.v1.GenerationService/StreamGenerate"
REPLICAS = "abstractllm.replica."
Samples = dict[str, list[tuple[dict[str, str], float]]]


def samples(running: Serving) -> Samples:
    """Returns what Prometheus reads of a server, by name, each value with its labels."""
    assert running.server.metrics is not None
    return parsed(running.server.metrics.render()[0].decode())


def parsed(text: str) -> Samples:
    """Returns the values in a text for Prometheus."""
    values: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, []).append((sample.labels, sample.value))
    return values


def total(values: Samples, name: str, **labels: str) -> float:
    """Returns the sum of the values with these labels."""
    return sum(value for names, value in values.get(name, ()) if labels.items() <= names.items())


async def fails(call: Any) -> grpc.StatusCode:
    """Returns the status that a call fails with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@asynccontextmanager
async def measured(folder: Path) -> AsyncIterator[Serving]:
    """Serves LLMs of each kind, with metrics."""
    tiny = {
        "model": str(build(folder / "llama", "llama")),
        # The tests have a home each, where the cache would be else.
        "cache_dir": str(folder / "cache"),
        "threads": 1,
        "max_batch_size": 4,
        "kv_cache_bytes": 1 << 20,
    }
    async with asking(saying("Paris", " it", " is")) as (gpt, _):
        gpt.name = "gpt"
        limited = ScriptedProvider(script=[RateLimitedError("slow down")])
        limited.name = "limited"
        llms = {
            "echo": ScriptedProvider(),
            "gpt": gpt,
            "limited": limited,
            "best": FallbackProvider({"llms": [limited, gpt]}),
            "local": HuggingFaceProvider(tiny),
        }
        async with serving(llms, monitoring="127.0.0.1:0", preload=["local"]) as running:
            yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with measured(tmp_path_factory.mktemp("models")) as running:
        yield running


async def ended(running: Serving) -> None:
    """Waits until all calls have been recorded, which is after their clients know of their end."""
    await until(lambda: total(samples(running), "abstractllm_server_calls_active") == 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_of_each_kind_are_counted_once(running: Serving) -> None:
    before = samples(running)
    generation = running.generation
    for llm in ("echo", "gpt", "best"):
        await generation.Generate(request(llm=llm))
    local = await generation.Generate(request("hello", llm="local", parameters={"max_tokens": 9}))
    async for _ in generation.StreamGenerate(request("one two three", llm="echo")):
        pass
    await generation.CountTokens(pb.CountTokensRequest(llm="echo", prompt="one two"))
    await running.health.Check(health_pb2.HealthCheckRequest())
    assert await fails(generation.Generate(request(llm="limited"))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await fails(generation.Generate(request(llm="made-up"))) is grpc.StatusCode.NOT_FOUND
    assert await fails(generation.Generate(request(""))) is grpc.StatusCode.INVALID_ARGUMENT
    unknown = running.channel.unary_unary("/made.Up/Method")
    assert await fails(unknown(b"")) is grpc.StatusCode.UNIMPLEMENTED
    await ended(running)
    after = samples(running)

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    calls = "rpc_server_call_duration_seconds_count"
    assert grown(calls) == 11
    assert grown(calls, rpc_method=GENERATE, rpc_response_status_code="OK", error_type="") == 4
    assert grown(calls, rpc_method=STREAM) == grown(calls, rpc_method="grpc.health.v1.Health/Check") == 1
    assert grown(calls, rpc_method="_OTHER", rpc_response_status_code="UNIMPLEMENTED") == 1
    answers = "gen_ai_server_request_duration_seconds_count"
    assert grown(answers) == 6
    assert grown(answers, abstractllm_llm="best", gen_ai_provider_name="openai", error_type="") == 1
    assert grown(answers, abstractllm_llm="limited", error_type="RATE_LIMITED") == 1
    assert grown("gen_ai_server_time_to_first_token_seconds_count") == 5
    refusals = "abstractllm_server_refusals_total"
    assert grown(refusals, error_type="UNKNOWN_LLM") == grown(refusals, error_type="INVALID_REQUEST") == 1
    # The fallback asks gpt, too.
    assert grown("gen_ai_client_operation_duration_seconds_count", abstractllm_llm="gpt") == 2
    assert grown("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 2 * 7
    tokens = "abstractllm_server_tokens_total"
    assert grown(tokens, abstractllm_llm="local", gen_ai_token_type="input") == local.usage.input_tokens
    assert grown(tokens, abstractllm_llm="local", gen_ai_token_type="output") == local.usage.output_tokens
    assert grown("abstractllm_engine_generated_tokens_total") == local.usage.output_tokens
    assert grown("abstractllm_server_prefill_duration_seconds_count", abstractllm_llm="local") == 1
    assert total(after, "abstractllm_engine_loads_total", abstractllm_outcome="success") == 1
    assert total(after, "abstractllm_engine_memory_bytes", abstractllm_kind="weights") > 0


@pytest.mark.asyncio(loop_scope="module")
async def test_calls_that_run_and_wait_are_seen_while_they_do(running: Serving) -> None:
    call = running.generation.StreamGenerate(request("a b c", llm="echo", delay=0.05))
    await call.read()
    values = samples(running)
    assert total(values, "abstractllm_server_calls_active", rpc_method=STREAM) == 1
    assert total(values, "abstractllm_llm_requests", abstractllm_llm="echo", abstractllm_state="running") == 1
    call.cancel()
    await ended(running)
    answers = "gen_ai_server_request_duration_seconds_count"
    assert total(samples(running), answers, abstractllm_llm="echo", error_type="CANCELLED") == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_tokens_of_local_answers_that_are_left_are_counted(running: Serving) -> None:
    name = "abstractllm_server_tokens_total"
    labels = {"abstractllm_llm": "local", "gen_ai_token_type": "output"}
    # The same question again takes some of its tokens from the cache.
    for _ in range(2):
        await running.generation.Generate(request("hello " * 20, llm="local", parameters={"max_tokens": 1}))
    await ended(running)
    before = total(samples(running), name, **labels)
    endless = request("Count", llm="local", parameters={"logit_bias": ENDLESS})
    calls = [asyncio.ensure_future(running.generation.Generate(endless)) for _ in range(4)]
    await until(lambda: total(samples(running), "abstractllm_engine_batch_size", abstractllm_llm="local") == 4)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await ended(running)
    assert total(samples(running), name, **labels) - before >= 4


# A server as it is run.

SERVER = """
listen: 127.0.0.1:0
monitoring: 127.0.0.1:0
tls: {{certificate: {certificate}, key: {key}}}
tokens: {tokens}
preload: []
llms:
  gpt: {{provider: openai, model: m, api_key: sk-test, base_url: "{base_url}"}}
  local: {{provider: huggingface, model: demo, cache_dir: "{cache}"}}
"""


@asynccontextmanager
async def process(folder: Path, base_url: str) -> AsyncIterator[tuple[str, str, Authority]]:
    """Runs a server with tokens and TLS; gives its address, that of its metrics, and the root of its certificate."""
    root = Authority(folder)
    pair = root.sign("server")
    tokens, config, log = folder / "tokens", folder / "llms.yaml", folder / "log"
    tokens.write_text(line("secret", "admin"))
    values = {"certificate": pair.certificate, "key": pair.key, "tokens": tokens, "cache": folder / "cache"}
    config.write_text(SERVER.format(**values, base_url=base_url))
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--config", str(config)]
    with log.open("w") as output:
        server = await asyncio.create_subprocess_exec(*command, stderr=output)
    try:
        await until(lambda: server.returncode is not None or "listening on" in log.read_text())
        address = re.search(r"listening on (\S+)", log.read_text())
        monitoring = re.search(r"monitoring on (\S+)", log.read_text())
        assert address and monitoring, log.read_text()
        yield address[1], f"{monitoring[1]}/metrics", root
    finally:
        server.terminate()
        await server.wait()


def scraped(address: str) -> Samples:
    """Returns what a server's `/metrics` says."""
    return parsed(urllib.request.urlopen(address, timeout=HANG).read().decode())


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_and_every_query_of_dashboard_and_alerts_is_live(
    running: Serving, tmp_path: Path, repository: Path
) -> None:
    async with (
        asking(saying("Paris", " it", " is")) as (gpt, _),
        process(tmp_path, gpt.get_config()["base_url"]) as (address, metrics, root),
    ):
        credentials = grpc.ssl_channel_credentials(root.pair.certificate.read_bytes())
        async with aio.secure_channel(f"localhost:{address.rpartition(':')[2]}", credentials) as channel:
            generation = generation_pb2_grpc.GenerationServiceStub(channel)
            await generation.Generate(request(llm="gpt"), metadata=[("authorization", "Bearer secret")], timeout=HANG)
            assert await fails(generation.Generate(request(llm="gpt"))) is grpc.StatusCode.UNAUTHENTICATED
        documented = {
            prometheus_name(instrument) + ("_count" if instrument.kind is Kind.HISTOGRAM else ""): instrument
            for instrument in INSTRUMENTS.values()
            # Those of Ray's replicas are read where there are some, in tests/ray.
            if not instrument.name.startswith(REPLICAS)
        }
        # What only an answer of a local model leaves behind.
        answered = samples(running)
        values: Samples = {}

        def missing() -> set[str]:
            nonlocal values
            values = scraped(metrics)
            return set(documented) - set(values) - set(answered)

        with contextlib.suppress(TimeoutError):  # the files are looked at once a second
            refused = {"error_type": "UNAUTHENTICATED"}  # counted behind the end that its caller sees
            await until(lambda: not missing() and total(values, "abstractllm_server_refusals_total", **refused), 10)
    assert total(values, "abstractllm_server_refusals_total", error_type="UNAUTHENTICATED") == 1
    assert total(values, "gen_ai_server_request_duration_seconds_count") == 1
    values = answered | values
    assert missing_names(documented, values) == []
    for name, instrument in documented.items():
        labels = {label for names, _ in values[name] for label in names}
        assert labels <= set(map(prometheus_label, instrument.attributes)), instrument.name
    values["up"] = [({}, 1.0)]
    for instrument in INSTRUMENTS.values():
        if instrument.name.startswith(REPLICAS):
            values[prometheus_name(instrument)] = [
                (dict.fromkeys(map(prometheus_label, instrument.attributes), ""), 0.0)
            ]
    dashboard = json.loads((repository / "deploy/grafana/abstractllm.json").read_text("utf-8"))
    (group,) = yaml.safe_load((repository / "deploy/prometheus/alerts.yaml").read_text("utf-8"))["groups"]
    for text in [*dashboard_queries(dashboard), *(rule["expr"] for rule in group["rules"])]:
        for name, labels in parse(text).selectors:
            assert name in values, f"{name} is not there: {text}"
            known = {label for names, _ in values[name] for label in names} | TARGET_LABELS
            # Nothing has failed, so that no series has a type of error yet.
            assert labels <= known | {"error_type"}, f"{name} has no label {labels - known}: {text}"


def missing_names(documented: Mapping[str, Any], values: Samples) -> list[str]:
    """Returns the metrics that are documented and not there; models that do not reason have no tokens of reasoning."""
    return sorted(set(documented) - set(values) - {"abstractllm_server_tokens_reasoning_total"})
