"""Traces: a program's trace goes on in the server, and from there at hosted LLMs and in the local engine."""

import asyncio
import contextvars
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from abstractllm.call_record import CallRecord, UpstreamCall
from abstractllm_client import AbstractLLMError, AsyncRemoteLLM, AuthenticationError, PermissionDeniedError
from abstractllm_server.telemetry.spans import Traces
from tests.providers import anthropic_server, fake_http, ollama_server, openai_server
from tests.providers.fake_http import Exchange
from tests.server.otlp_collector import Collector, Span, collecting
from tests.server.support import HANG
from tests.waiting import until

GENERATE = "abstractllm_api.v1.GenerationService/Generate"
INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2
module_loop = pytest.mark.asyncio(loop_scope="module")
KEY, SECRET = "sk-canary-0123456789", "canary content"


MALFORMED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "no state at all",
    "baggage": "no baggage at all",
}


class Process:
    """A server in a process of its own, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, address: str) -> None:
        self.process = process
        self.log = log
        self.address = address

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Returns the log's records with a message."""
        values = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [value for value in values if value["message"] == message]


@asynccontextmanager
async def started(
    path: Path, llms: dict[str, Any], settings: dict[str, Any] | None = None, **variables: str
) -> AsyncIterator[Process]:
    """Starts a server with OpenTelemetry's variables."""
    file, log = path / "llms.yaml", path / "log"
    config = {"listen": "127.0.0.1:0", "grace": 1, "log_level": "debug", "log_format": "json", "llms": llms} | (
        settings or {}
    )
    file.write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abstractllm_cli", "serve", "--config", file),
            stderr=output,
            env=environment | variables,
        )
    try:
        await until(lambda: process.returncode is not None or re.search(r"listening on ([^\s\"]+)", log.read_text()))
        match = re.search(r"listening on ([^\s\"]+)", log.read_text())
        assert match, log.read_text()
        yield Process(process, log, match[1])
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), HANG)


def sending_to(collector: Collector, **variables: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    } | variables


def only(spans: list[Span]) -> Span:
    (span,) = spans
    return span


@asynccontextmanager
async def hosted_apis() -> AsyncIterator[tuple[fake_http.FakeServer, dict[str, Any]]]:
    """Plays three hosted APIs on one address, and yields the LLMs that ask them."""
    answers = {
        "/v1/chat/completions": openai_server.saying("All ", SECRET),
        "/v1/messages": anthropic_server.says(anthropic_server.answer("All ", SECRET)),
        "/api/chat": ollama_server.says(ollama_server.answer("All ", SECRET)),
    }

    async def handle(exchange: Exchange) -> None:
        path = exchange.request.path.partition("?")[0]
        if exchange.request.json["model"] == "fail":
            await exchange.respond({"error": {"message": "no " + SECRET}}, status=503)
        else:
            await answers.get(path, answers["/api/chat"])(exchange)

    async with fake_http.serving(handle) as apis:
        common = {"max_retries": 0, "api_key": KEY}
        openai = {"provider": "openai", "base_url": f"{apis.url}/v1"} | common
        yield (
            apis,
            {
                "openai": openai | {"model": "gpt"},
                "anthropic": {"provider": "anthropic", "base_url": apis.url, "model": "claude"} | common,
                "ollama": {"provider": "ollama", "base_url": apis.url, "model": "llama", "max_retries": 0},
                "failing": openai | {"model": "fail"},
                "best": {"provider": "fallback", "llms": ["failing", "openai"]},
            },
        )


@dataclass
class Hosted:
    """A server in front of hosted APIs, and the collector that it sends to."""

    collector: Collector
    apis: fake_http.FakeServer
    server: Process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosted]:
    """One server for the tests with hosted LLMs."""
    with collecting() as collector:
        async with (
            hosted_apis() as (apis, llms),
            started(tmp_path_factory.mktemp("hosted"), llms, **sending_to(collector)) as server,
        ):
            yield Hosted(collector, apis, server)


@pytest.fixture
def hosted(shared: Hosted) -> Hosted:
    """The server, with a collector that has no spans yet: each test waits for all of its call's."""
    shared.collector.spans, shared.collector.raw = [], b""
    return shared


@module_loop
@pytest.mark.parametrize(("name", "model"), [("openai", "gpt"), ("anthropic", "claude"), ("ollama", "llama")])
async def test_trace_of_a_program_goes_on_in_the_server_and_at_a_hosted_llm(
    hosted: Hosted, name: str, model: str
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
    collector, server = hosted.collector, hosted.server
    token = context.attach(baggage.set_baggage("user", "canary"))
    with tracer.start_as_current_span("program") as program:
        async with AsyncRemoteLLM(server.address, name) as llm:
            assert await llm.generate(SECRET, request_id=f"r-{name}", labels={"team": "blue"}) == f"All {SECRET}"
    context.detach(token)
    await until(lambda: collector.named(GENERATE) and collector.named(f"chat {model}"))
    sent = hosted.apis.requests[-1].headers
    log = server.log.read_text()
    line = server.lines("call")[-1]
    call, chat = only(collector.named(GENERATE)), only(collector.named(f"chat {model}"))
    local = program.get_span_context()
    assert (call.trace_id, call.parent) == (f"{local.trace_id:032x}", f"{local.span_id:016x}")
    assert (call.kind, call.status, call.attributes["rpc.response.status_code"]) == (SERVER, 0, "OK")
    assert call.attributes["rpc.method"] == GENERATE
    assert call.attributes["abstractllm.request_id"] == f"r-{name}"
    assert call.attributes["abstractllm.label.team"] == "blue"
    assert call.attributes["abstractllm.llm"] == name
    assert call.resource["service.name"] == "abstractllm"
    assert (chat.kind, chat.parent, chat.trace_id) == (CLIENT, call.span_id, call.trace_id)
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.provider.name"] == name
    assert chat.attributes["gen_ai.request.model"] == model
    assert chat.attributes["server.address"] == "127.0.0.1"
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert call.start <= chat.start <= chat.end <= call.end
    assert re.fullmatch(f"00-{chat.trace_id}-{chat.span_id}-0[13]", sent["traceparent"])
    assert "baggage" not in sent
    assert (line["request_id"], line["trace_id"]) == (f"r-{name}", call.trace_id)
    for secret in (KEY, SECRET, "canary"):
        assert secret.encode() not in collector.raw
        assert secret not in log


@module_loop
async def test_each_attempt_of_a_fallback_has_a_span_of_its_own(hosted: Hosted) -> None:
    collector, names = hosted.collector, (GENERATE, "chat fail", "chat gpt")
    async with AsyncRemoteLLM(hosted.server.address, "best") as llm:
        assert await llm.generate(SECRET)
    await until(lambda: all(collector.named(name) for name in names))
    call, failed, answered = (only(collector.named(name)) for name in names)
    assert (failed.status, failed.attributes["error.type"]) == (ERROR, "PROVIDER_UNAVAILABLE")
    assert (failed.parent, answered.parent, answered.status) == (call.span_id, call.span_id, 0)
    assert (call.parent, call.status, call.attributes["abstractllm.llm"]) == ("", 0, "best")
    assert "error.type" not in call.attributes
    assert SECRET.encode() not in collector.raw


def test_local_answer_after_a_hosted_llm_has_failed_has_its_span() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, lambda _: True)
    failed = UpstreamCall("gpt", "openai", "gpt", error_reason="PROVIDER_UNAVAILABLE")
    record = CallRecord(operation="chat", method=f"/{GENERATE}", caller="ci", upstream=[failed])
    contextvars.copy_context().run(traces.started, record, ())
    now = record.arrived_at
    record.provider, record.model, record.first_token_at, record.ended_at = "huggingface", "demo", now + 2, now + 3
    record.prefill, record.decode = 1.0, 1.1  # as the engine measures it, which noted the first token a moment before
    traces.ended(record)
    traces.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {GENERATE, "chat demo", "prefill", "decode"}
    assert spans["decode"].parent == spans["chat demo"].context
    assert spans["decode"].end_time == spans["chat demo"].end_time == spans[GENERATE].end_time


def test_waiting_of_a_later_try_is_told_at_its_time() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, lambda _: True)
    upstream = [UpstreamCall("gpt", "openai", "gpt", error_reason="PROVIDER_UNAVAILABLE")]
    record = CallRecord(operation="chat", method=f"/{GENERATE}", caller="ci", upstream=upstream)
    record.arrived_at -= 10  # which the first try has taken
    contextvars.copy_context().run(traces.started, record, ())
    record.begin_try()
    record.provider, record.model, record.queued, record.ended_at = "openai", "gpt", 2.0, record.arrived_at + 20
    traces.ended(record)
    traces.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    begin, queue = spans[GENERATE].start_time, spans["queue"]
    assert begin and queue.start_time and queue.end_time
    assert queue.start_time - begin >= 10e9
    assert queue.end_time - queue.start_time == pytest.approx(2e9)


@pytest.mark.parametrize(
    ("peer", "address", "port"),
    [
        ("ipv4:127.0.0.1:57614", "127.0.0.1", 57614),
        ("ipv6:%5B::1%5D:57614", "::1", 57614),
        ("ipv6:%5Bfe80::1%252%5D:57614", "fe80::1%2", 57614),
        ("unix:3", "unix:3", None),
    ],
)
def test_spans_have_what_the_conventions_name(peer: str, address: str, port: int | None) -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, lambda _: True)
    record = CallRecord(operation="chat", method=f"/{GENERATE}", caller="ci", peer=peer, status="CANCELLED")
    contextvars.copy_context().run(traces.started, record, ())
    record.provider, record.model, record.ended_at = "huggingface", "demo", record.arrived_at + 3
    traces.ended(record)
    traces.close()
    spans = {span.name: span.attributes or {} for span in exporter.get_finished_spans()}
    assert spans[GENERATE]["network.peer.address"] == address
    assert spans[GENERATE].get("network.peer.port") == port
    assert spans[GENERATE]["error.type"] == spans["chat demo"]["error.type"] == "CANCELLED"


@module_loop
async def test_call_that_fails_has_a_span_of_an_error(hosted: Hosted) -> None:
    collector = hosted.collector
    async with AsyncRemoteLLM(hosted.server.address, "failing", channel_options=[("grpc.enable_retries", 0)]) as llm:
        with pytest.raises(AbstractLLMError):
            await llm.generate(SECRET)
    await until(lambda: collector.named(GENERATE) and collector.named("chat fail"))
    call = only(collector.named(GENERATE))
    assert (call.status, call.attributes["error.type"]) == (ERROR, "PROVIDER_UNAVAILABLE")
    assert SECRET.encode() not in collector.raw


async def test_local_answer_has_the_spans_of_waiting_prefill_and_decode(tmp_path: Path) -> None:
    with collecting() as collector:
        local = {"local": {"provider": "huggingface", "model": "demo"}}
        async with (
            started(tmp_path, local, **sending_to(collector, OTEL_SERVICE_NAME="mine")) as server,
            AsyncRemoteLLM(server.address) as llm,
        ):
            await llm.generate("What is 7 + 5?", timeout=100, max_tokens=5)
            await until(lambda: collector.named(GENERATE) and collector.named("decode"))
        call, chat = only(collector.named(GENERATE)), only(collector.named("chat demo"))
        queue, prefill, decode = (only(collector.named(name)) for name in ("queue", "prefill", "decode"))
        assert (chat.kind, chat.parent) == (INTERNAL, call.span_id)
        assert {queue.parent, prefill.parent, decode.parent} == {chat.span_id}
        assert {span.trace_id for span in (chat, queue, prefill, decode)} == {call.trace_id}
        assert chat.attributes["gen_ai.usage.output_tokens"] == 5
        assert chat.attributes["gen_ai.response.finish_reasons"] == ["max_tokens"]
        assert call.start <= queue.start <= queue.end <= prefill.start <= prefill.end <= decode.start <= decode.end
        # The engine notes its end before the call has ended.
        assert decode.end <= call.end
        assert call.resource["service.name"] == "mine"


SAMPLED = {
    "alone": ("", True),
    "unsampled": ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", False),
    "sampled": ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
    "malformed": ("no trace at all", True),
}
"""By request id: the parent that a call names, and whether its span is sent where no variable says otherwise."""


@pytest.mark.parametrize(
    "variables",
    [{}, {"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}],
    ids=["none set", "sampler", "none", "disabled"],
)
async def test_sampling_follows_the_usual_variables(tmp_path: Path, variables: dict[str, str]) -> None:
    with collecting() as collector:
        async with started(
            tmp_path, {"echo": {"provider": "scripted"}}, **sending_to(collector, **variables)
        ) as server:
            for name, (parent, _) in SAMPLED.items():
                metadata = {"traceparent": parent} if parent else {}
                async with AsyncRemoteLLM(server.address, metadata=metadata) as llm:
                    assert await llm.generate("hello", request_id=name) == "hello"
        # What waits is sent at the end.
        sent = {name for name, (_, is_sent) in SAMPLED.items() if is_sent and not variables}
        assert {span.attributes["abstractllm.request_id"] for span in collector.named(GENERATE)} == sent
        assert bool(collector.spans) is bool(sent)


async def test_probes_and_callers_who_are_not_known_have_no_spans(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(b'good').hexdigest()} inference ci\n")
    tokens.chmod(0o600)
    with collecting() as collector:
        async with (
            started(
                tmp_path, {"echo": {"provider": "scripted"}}, {"tokens": str(tokens)}, **sending_to(collector)
            ) as server,
            AsyncRemoteLLM(server.address, token="good") as known,
            AsyncRemoteLLM(server.address, token="bad", metadata=MALFORMED) as stranger,
        ):
            async with aio.insecure_channel(server.address) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            for _ in range(20):
                with pytest.raises(AuthenticationError):
                    await stranger.generate("hello")
            with pytest.raises(PermissionDeniedError):
                await known.get_config()
            assert await known.generate("hello") == "hello"
            loggers = {json.loads(line)["logger"] for line in server.log.read_text().splitlines()}
    # Nor can they fill the log.
    assert not any(name.startswith("opentelemetry") for name in loggers)
    calls = [span for span in collector.spans if span.kind == SERVER]
    denied, call = sorted(calls, key=lambda span: span.start)
    assert denied.attributes["error.type"] == "NOT_ALLOWED"
    assert call.attributes["abstractllm.caller"] == "inference:ci"
    assert {span.trace_id for span in collector.spans} == {denied.trace_id, call.trace_id}


@pytest.mark.parametrize("kind", ["nobody listens", "nobody answers"])
async def test_collector_that_does_not_answer_holds_up_neither_calls_nor_the_exit(tmp_path: Path, kind: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "nobody answers":
            silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "10"}
        async with started(tmp_path, {"echo": {"provider": "scripted"}}, **variables) as server:
            async with AsyncRemoteLLM(server.address) as llm:
                for _ in range(3):
                    assert await asyncio.gather(*(llm.generate("hello") for _ in range(50))) == ["hello"] * 50
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(server.process.wait(), HANG) == 0
            assert time.monotonic() - began < 10


def test_server_without_traces_does_not_load_the_sdk() -> None:
    code = (
        "import asyncio, sys\n"
        "from abstractllm.registry import LLMRegistry\n"
        "from abstractllm.testing import ScriptedProvider\n"
        "from abstractllm_server.app import Server\n"
        "from abstractllm_server.settings import ServerSettings\n"
        "async def main():\n"
        "    registry = LLMRegistry({'echo': ScriptedProvider()})\n"
        "    async with Server(registry, ServerSettings(listen='127.0.0.1:0', llms={'echo': {}})):\n"
        "        print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "asyncio.run(main())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many", "OTEL_*"),
    ],
)
def test_variable_that_asks_for_what_there_is_not_is_refused_at_the_start(
    tmp_path: Path, variable: str, value: str, named: str
) -> None:
    done = refused_start(tmp_path, **{variable: value})
    assert named in done.stderr and value in done.stderr
    assert "llms.yaml" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: NOT_CONFIGURED: ")
    assert "Traceback" not in done.stderr


def test_malformed_credentials_for_a_collector_are_told_without_them(tmp_path: Path) -> None:
    # The SDK tells of the headers before it fails at something else.
    codes = "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"
    malformed = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer sk-canary", codes: "SOMETIMES"}
    done = refused_start(tmp_path, **malformed)
    assert "OTEL_EXPORTER_OTLP_HEADERS is malformed" in done.stderr
    assert "canary" not in done.stderr


def refused_start(path: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Starts a server that sends traces and must refuse to start."""
    file = path / "llms.yaml"
    file.write_text("listen: 127.0.0.1:0\nllms:\n  echo: {provider: scripted}\n")
    done = subprocess.run(
        [sys.executable, "-m", "abstractllm_cli", "serve", "--config", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ
        | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"}
        | variables,
    )
    assert done.returncode == 2, done.stderr
    return done
