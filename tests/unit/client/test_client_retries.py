"""Retries of a client, which the server allows, forbids and times."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

import abstractllm_client as client
from abstractllm_client import AsyncRemoteLLM, RemoteLLM
from abstractllm_client._channel import MESSAGE_LIMIT

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


async def answers(address: str, prompt: str = "Hi") -> list[str]:
    """The answers to asking in every way."""
    texts: list[str] = []
    with RemoteLLM(address) as sync:
        async with AsyncRemoteLLM(address) as llm:
            texts.append(sync.generate(prompt))
            texts.append("".join(sync.generate(prompt, stream=True)))
            texts.append(await llm.generate(prompt))
            texts.append("".join([piece async for piece in await llm.generate(prompt, stream=True)]))
    return texts


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED], ids=["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_a_failure_with_pushback_is_retried_up_to_five_attempts(
    server: Any, failure: Any, code: grpc.StatusCode
) -> None:
    again = failure(code, "again", "OVERLOADED", retry_after=0.01, pushback_ms=10)
    with RemoteLLM(server.address) as llm:
        for ask in (llm.generate, lambda prompt: "".join(llm.generate(prompt, stream=True))):
            server.requests.clear()
            server.fail(*[again] * 4, then="There")
            assert ask("Hi") == "There"
            assert len(server.requests) == 5
            server.requests.clear()
            server.fail(again)
            with pytest.raises(client.OverloadedError) as caught:
                ask("Hi")
            assert caught.value.retry_after == 0.01
            assert len(server.requests) == 5


async def test_the_asynchronous_client_retries_too(server: Any, failure: Any) -> None:
    again = failure(UNAVAILABLE, "again", "ENGINE_CRASHED", retry_after=0.01, pushback_ms=10)
    async with AsyncRemoteLLM(server.address) as llm:
        server.fail(again, again, then="There")
        assert await llm.generate("Hi") == "There"
        assert len(server.requests) == 3
        server.fail(again, again, then="There")
        assert [piece async for piece in await llm.generate("Hi", stream=True)] == ["There"]
        assert len(server.requests) == 6


async def test_the_pushback_is_waited_for(server: Any, failure: Any) -> None:
    server.fail(failure(UNAVAILABLE, "later", "SHUTTING_DOWN", retry_after=1.5, pushback_ms=1500), then="There")
    with RemoteLLM(server.address) as llm:
        began = time.monotonic()
        assert llm.generate("Hi") == "There"
        # The policy's own first wait would be at most a quarter of a second.
        assert time.monotonic() - began > 1.4


@pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED], ids=["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_a_pushback_of_minus_one_ends_the_retries(server: Any, failure: Any, code: grpc.StatusCode) -> None:
    server.fail(failure(code, "never", "QUOTA_EXCEEDED", pushback_ms=-1))
    with RemoteLLM(server.address) as llm:
        with pytest.raises(client.QuotaExceededError):
            llm.generate("Hi")
        with pytest.raises(client.QuotaExceededError):
            list(llm.stream("Hi"))
        with pytest.raises(client.QuotaExceededError):
            await llm.generate_async("Hi")
    assert len(server.requests) == 3


async def test_other_codes_are_not_retried(server: Any, failure: Any) -> None:
    server.fail(failure(grpc.StatusCode.INTERNAL, "broken", "INTERNAL", pushback_ms=10))
    with RemoteLLM(server.address) as llm, pytest.raises(client.InternalError):
        llm.generate("Hi")
    assert len(server.requests) == 1


async def test_a_deadline_bounds_the_retries(server: Any, failure: Any) -> None:
    server.fail(failure(UNAVAILABLE, "later", "SHUTTING_DOWN", retry_after=3600, pushback_ms=3_600_000))
    with RemoteLLM(server.address) as llm, pytest.raises(client.GenerationTimeoutError):
        llm.generate("Hi", timeout=0.5)


async def test_a_request_as_large_as_the_limit_is_retried(server: Any, failure: Any) -> None:
    prompt = "x" * (MESSAGE_LIMIT - 1000)
    again = failure(UNAVAILABLE, "again", "ENGINE_CRASHED", retry_after=0.01, pushback_ms=10)
    with RemoteLLM(server.address) as llm:
        server.fail(again, then="There")
        assert llm.generate(prompt) == "There"
        server.fail(again, then="There")
        assert await llm.generate_async(prompt) == "There"
    assert [len(request.prompt) for request in server.requests] == [len(prompt)] * 4


async def test_a_stream_that_has_begun_is_not_retried(server: Any, failure: Any) -> None:
    server.say()
    begin = server.handlers["StreamGenerate"]
    breaks = failure(UNAVAILABLE, "broke", "INCOMPLETE_STREAM", pushback_ms=10)

    async def pieces(request: Any, context: Any) -> Any:
        async for message in begin(request, context):
            yield message
            await breaks(request, context)

    server.handlers["StreamGenerate"] = pieces
    with RemoteLLM(server.address) as llm, pytest.raises(client.IncompleteStreamError):
        list(llm.stream("Hi"))
    assert len(server.requests) == 1


async def test_every_way_to_ask_survives_one_lost_attempt(server: Any, failure: Any) -> None:
    again = failure(EXHAUSTED, "again", "RATE_LIMITED", retry_after=0.01, pushback_ms=10)
    server.say("There")
    answer = dict(server.handlers)
    calls = 0

    async def whole(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        return await (again if calls % 2 else answer["Generate"])(request, context)

    async def pieces(request: Any, context: Any) -> Any:
        nonlocal calls
        calls += 1
        async for message in (again.stream if calls % 2 else answer["StreamGenerate"])(request, context):
            yield message

    server.handlers |= {"Generate": whole, "StreamGenerate": pieces}
    assert await answers(server.address) == ["There"] * 4
    assert calls == 8
