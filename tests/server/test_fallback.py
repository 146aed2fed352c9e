"""A fallback through the server: who answered, what failed, and how it is told over the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import config_pb2, errors_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import RemoteLLM
from tests.server.support import Serving, collect, failure, request, serving
from tests.waiting import until


def failing(reason: str, **facts: Any) -> dict[str, Any]:
    return {"provider": "scripted", "script": [{"error": reason, **facts}]}


ECHO = {"provider": "scripted", "model": "m"}


@asynccontextmanager
async def falling_back(config: dict[str, Any] | None = None, **lines: dict[str, Any]) -> AsyncIterator[Serving]:
    """A server whose default LLM, `best`, falls back between the others."""
    best = {"provider": "fallback", "llms": list(lines), "max_retries": 0} | (config or {})
    registry = LLMRegistry.from_config({"best": best} | lines)
    async with serving({llm.name: llm for llm in registry}) as served:
        yield served


async def test_the_answer_tells_who_gave_it_and_lists_the_failed_attempts() -> None:
    async with falling_back(
        a=failing("PROVIDER_UNAVAILABLE", message="down"), b=failing("CANCELLED"), c=ECHO
    ) as served:
        served.registry["b"].set_config(script=[{"error": "QUOTA_EXCEEDED"}])
        unary = await served.generation.Generate(request("hello"))
        events = await collect(served.generation.StreamGenerate(request("hello")))
    started, finished = events[0].started, events[-1].finished
    for source in (unary, started):
        assert (source.llm, source.provider, source.model) == ("c", "scripted", "m")
    for attempts in (unary.attempts, finished.attempts):
        told = [(one.llm, one.provider, one.model, one.error_reason, one.message) for one in attempts]
        assert told == [
            ("a", "scripted", "script", errors_pb2.ERROR_REASON_PROVIDER_UNAVAILABLE, "down"),
            ("b", "scripted", "script", errors_pb2.ERROR_REASON_QUOTA_EXCEEDED, "scripted QUOTA_EXCEEDED"),
            ("c", "scripted", "m", errors_pb2.ERROR_REASON_UNSPECIFIED, ""),
        ]
        assert all(one.HasField("duration") for one in attempts)


async def test_a_failure_of_all_is_one_status_that_names_them_and_says_when_to_try_again() -> None:
    lines = {"a": failing("PROVIDER_CREDENTIALS"), "b": failing("RATE_LIMITED", retry_after=7, upstream_status=429)}
    async with falling_back(**lines) as served:
        for call in (served.generation.Generate(request()), collect(served.generation.StreamGenerate(request()))):
            failed = await failure(call)
            assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert "a: PROVIDER_CREDENTIALS" in failed.message or "b: RATE_LIMITED" in failed.message
            assert failed.metadata["llm"] == "b"
            assert failed.retry_delays == [7]


async def test_the_text_of_a_fault_of_the_software_stays_on_the_server() -> None:
    async with falling_back(a=failing("INTERNAL", message="secret detail"), b=ECHO) as served:
        answer = await served.generation.Generate(request("hello", request_id="r1"))
    assert answer.text == "hello"
    assert answer.attempts[0].error_reason == errors_pb2.ERROR_REASON_INTERNAL
    assert "secret" not in answer.attempts[0].message
    assert "r1" in answer.attempts[0].message


async def test_a_client_that_leaves_ends_the_llm_that_answers() -> None:
    async with falling_back(a=failing("PROVIDER_UNAVAILABLE"), b=ECHO) as served:
        slow = served.scripted("b")
        slow.set_config(delay=0.2)
        stream = served.generation.StreamGenerate(request("word " * 200))
        async for message in stream:
            if message.WhichOneof("event") == "text_delta":
                break
        stream.cancel()
        await until(lambda: slow.released == 1)
        await until(lambda: served.registry["best"].running == slow.running == 0)


async def test_a_deadline_bounds_all_attempts() -> None:
    hanging = {"provider": "scripted", "script": [{"delay": 60}], "timeout": 0.1}
    async with falling_back(a=hanging, b={**hanging, "timeout": 60}) as served:
        failed = await failure(served.generation.Generate(request(), timeout=1))
        assert failed.code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: served.registry["b"].running == 0)


async def test_it_is_listed_described_and_healthy_while_one_of_its_llms_is() -> None:
    unloaded = {"provider": "scripted", "load_error": "no memory"}
    async with falling_back(a=unloaded, b=ECHO) as served:
        await until(lambda: "a is failed" in served.registry["best"].state[1])
        listed = {llm.name: llm for llm in (await served.models.ListLlms(models_pb2.ListLlmsRequest())).llms}
        assert (listed["best"].provider, listed["best"].state) == ("fallback", models_pb2.LLM_STATE_READY)
        assert listed["best"].state_reason == "a is failed: no memory"
        answer = await served.models.GetCapabilities(models_pb2.GetCapabilitiesRequest(llm="best"))
        assert "temperature" in answer.capabilities.parameters
        for service in ("", "llm/best"):
            health = await served.health.Check(HealthCheckRequest(service=service))
            assert health.status == HealthCheckResponse.SERVING
        count = await served.generation.CountTokens(pb.CountTokensRequest(llm="best", prompt="one two"))
        assert count.input_tokens == 2


async def test_its_defaults_can_be_changed_but_it_takes_no_model() -> None:
    async with falling_back(a=ECHO, b=ECHO) as served:
        wish = config_pb2.LlmConfig(max_retries=3)
        wish.parameters.max_tokens = 1
        await served.config.SetConfig(config_pb2.SetConfigRequest(llm="best", config=wish))
        assert (await served.generation.Generate(request("hello big world"))).text == "hello"
        assert (await served.generation.Generate(request("hello big world", llm="a"))).text == "hello big world"
        for call in (
            served.config.SetConfig(config_pb2.SetConfigRequest(config=config_pb2.LlmConfig(model="gpt"))),
            served.generation.Generate(request(parameters=pb.GenerationParameters(model="gpt"))),
        ):
            failed = await failure(call)
            assert failed.reason == "MODEL_NOT_FOUND"
            assert failed.fields[0].endswith(".model")
        cleared = config_pb2.SetConfigRequest(llm="best", update_mask=FieldMask(paths=["parameters"]))
        assert not (await served.config.SetConfig(cleared)).config.parameters.HasField("max_tokens")


@pytest.mark.parametrize("whole", [True, False])
async def test_the_client_gets_answer_and_attempts_as_the_library_does(whole: bool) -> None:
    async with falling_back(a=failing("OVERLOADED"), b=ECHO) as served:
        async with RemoteLLM(served.server.address, "best") as client:
            if whole:
                attempts = (await client.complete_async("hello")).attempts
            else:
                attempts = [event async for event in client.stream_async("hello")][-1].attempts
        expected = (await served.registry["best"].complete_async("hello")).attempts
    assert [(one.llm, one.error_reason, one.message) for one in attempts] == [
        ("a", "OVERLOADED", "scripted OVERLOADED"),
        ("b", "", ""),
    ]
    assert [one.llm for one in expected] == ["a", "b"]
