"""A failed call raises the error that the server meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import abstractllm_client as client
from abstractllm_api.v1 import errors_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import AbstractLLMError, AsyncRemoteLLM, ErrorReason, RemoteLLM

Code = grpc.StatusCode
NO_RETRY = {"channel_options": [("grpc.enable_retries", 0)]}

# reason, class, code, whether a retry can help
TABLE = [
    ("INVALID_REQUEST", client.InvalidRequestError, Code.INVALID_ARGUMENT, False),
    ("UNSUPPORTED_PARAMETER", client.UnsupportedParameterError, Code.INVALID_ARGUMENT, False),
    ("CONTEXT_LENGTH_EXCEEDED", client.ContextLengthExceededError, Code.INVALID_ARGUMENT, False),
    ("MESSAGE_TOO_LARGE", client.InvalidRequestError, Code.RESOURCE_EXHAUSTED, False),
    ("UNSUPPORTED_FEATURE", client.UnsupportedFeatureError, Code.UNIMPLEMENTED, False),
    ("UNKNOWN_LLM", client.UnknownLLMError, Code.NOT_FOUND, False),
    ("MODEL_NOT_FOUND", client.ModelNotFoundError, Code.NOT_FOUND, False),
    ("UNAUTHENTICATED", client.AuthenticationError, Code.UNAUTHENTICATED, False),
    ("NOT_ALLOWED", client.PermissionDeniedError, Code.PERMISSION_DENIED, False),
    ("PROVIDER_CREDENTIALS", client.ProviderCredentialsError, Code.FAILED_PRECONDITION, False),
    ("NOT_CONFIGURED", client.ConfigurationError, Code.FAILED_PRECONDITION, False),
    ("MODEL_LOAD_FAILED", client.ModelLoadError, Code.FAILED_PRECONDITION, False),
    ("MODEL_IN_USE", client.ModelInUseError, Code.FAILED_PRECONDITION, False),
    ("CONTENT_BLOCKED", client.ContentBlockedError, Code.FAILED_PRECONDITION, False),
    ("RATE_LIMITED", client.RateLimitedError, Code.RESOURCE_EXHAUSTED, True),
    ("OVERLOADED", client.OverloadedError, Code.RESOURCE_EXHAUSTED, True),
    ("QUOTA_EXCEEDED", client.QuotaExceededError, Code.RESOURCE_EXHAUSTED, False),
    ("PROVIDER_UNAVAILABLE", client.ProviderUnavailableError, Code.UNAVAILABLE, True),
    ("PROVIDER_PROTOCOL", client.ProviderProtocolError, Code.UNAVAILABLE, True),
    ("INCOMPLETE_STREAM", client.IncompleteStreamError, Code.UNAVAILABLE, False),
    ("ENGINE_CRASHED", client.EngineCrashedError, Code.UNAVAILABLE, True),
    ("SHUTTING_DOWN", client.ServerShuttingDownError, Code.UNAVAILABLE, True),
    ("TIMEOUT", client.GenerationTimeoutError, Code.DEADLINE_EXCEEDED, False),
    ("CANCELLED", client.GenerationCancelledError, Code.CANCELLED, False),
    ("STALE_CONFIG", client.StaleConfigError, Code.ABORTED, False),
    ("INTERNAL", client.InternalError, Code.INTERNAL, False),
    ("UPSTREAM_REJECTED", client.UpstreamRejectedError, Code.FAILED_PRECONDITION, False),
]

# What a status without an ErrorInfo is taken for: from gRPC itself, or a proxy.
BARE = [
    (Code.INVALID_ARGUMENT, client.InvalidRequestError),
    (Code.OUT_OF_RANGE, client.InvalidRequestError),
    (Code.NOT_FOUND, client.UnknownLLMError),
    (Code.UNIMPLEMENTED, client.UnsupportedFeatureError),
    (Code.UNAUTHENTICATED, client.AuthenticationError),
    (Code.PERMISSION_DENIED, client.PermissionDeniedError),
    (Code.FAILED_PRECONDITION, client.ConfigurationError),
    (Code.RESOURCE_EXHAUSTED, client.OverloadedError),
    (Code.UNAVAILABLE, client.ProviderUnavailableError),
    (Code.DEADLINE_EXCEEDED, client.GenerationTimeoutError),
    (Code.CANCELLED, client.GenerationCancelledError),
    (Code.ABORTED, client.StaleConfigError),
    (Code.ALREADY_EXISTS, client.InternalError),
    (Code.UNKNOWN, client.InternalError),
    (Code.INTERNAL, client.InternalError),
    (Code.DATA_LOSS, client.InternalError),
]


async def every_way(address: str, **options: Any) -> list[AbstractLLMError]:
    """The error of each way to ask: whole and streamed, synchronous, twin and asynchronous."""
    caught: list[AbstractLLMError] = []
    with RemoteLLM(address, **options) as sync:
        async with AsyncRemoteLLM(address, **options) as llm:
            with pytest.raises(AbstractLLMError) as error:
                sync.generate("Hi")
            caught.append(error.value)
            with pytest.raises(AbstractLLMError) as error:
                list(sync.stream("Hi"))
            caught.append(error.value)
            with pytest.raises(AbstractLLMError) as error:
                await sync.complete_async("Hi")
            caught.append(error.value)
            with pytest.raises(AbstractLLMError) as error:
                await llm.generate("Hi")
            caught.append(error.value)
            with pytest.raises(AbstractLLMError) as error:
                _ = [event async for event in llm.stream("Hi")]
            caught.append(error.value)
    return caught


def test_the_table_covers_every_reason_of_the_contract() -> None:
    known = {name.removeprefix("ERROR_REASON_") for name in dict(errors_pb2.ErrorReason.items())}
    assert {row[0] for row in TABLE} == known - {"UNSPECIFIED"} == {str(reason) for reason in ErrorReason}


@pytest.mark.parametrize(("reason", "kind", "code", "retryable"), TABLE, ids=[row[0] for row in TABLE])
async def test_every_reason_becomes_its_error(
    server: Any, failure: Any, reason: str, kind: type[AbstractLLMError], code: grpc.StatusCode, retryable: bool
) -> None:
    metadata = {
        "request_id": "r1",
        "llm": "gpt",
        "provider": "openai",
        "model": "m",
        "upstream_status": "429",
        "field": "prompt",
        "limit": "512",
        "requested": "at least 600",
        "output_tokens": "3",
    }
    server.fail(failure(code, "no luck", reason, metadata, retry_after=1.25 if retryable else None, pushback_ms=-1))
    for error in await every_way(server.address):
        assert type(error) is kind
        assert error.reason is ErrorReason(reason)
        assert str(error) == error.message == "no luck"
        assert error.retryable is retryable
        assert error.retry_after == (1.25 if retryable else None)
        assert (error.request_id, error.llm, error.provider, error.model) == ("r1", "gpt", "openai", "m")
        assert (error.upstream_status, error.output_tokens) == (429, 3)
        assert (error.field, error.limit, error.requested) == ("prompt", 512, "at least 600")
        assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(("code", "kind"), BARE, ids=[row[0].name for row in BARE])
async def test_a_status_without_details_is_judged_by_its_code(
    server: Any, failure: Any, code: grpc.StatusCode, kind: type[AbstractLLMError]
) -> None:
    server.fail(failure(code, "bare", pushback_ms=-1))
    for error in await every_way(server.address):
        assert type(error) is kind
        assert error.reason is kind.default_reason
        assert error.retryable is (code is Code.UNAVAILABLE)
        assert error.message == "bare"


async def test_an_error_info_of_another_domain_is_not_ours(server: Any, failure: Any) -> None:
    server.fail(failure(Code.PERMISSION_DENIED, "proxy", "RATE_LIMITED", domain="proxy.example"))
    for error in await every_way(server.address):
        assert type(error) is client.PermissionDeniedError


async def test_a_reason_from_the_future_keeps_its_name_and_is_judged_by_its_code(server: Any, failure: Any) -> None:
    server.fail(failure(Code.FAILED_PRECONDITION, "new", "MOON_PHASE"))
    for error in await every_way(server.address):
        assert type(error) is client.ConfigurationError
        assert error.reason == "MOON_PHASE"
        assert not error.retryable
    server.fail(failure(Code.RESOURCE_EXHAUSTED, "new", "MOON_PHASE", retry_after=2, pushback_ms=-1))
    for error in await every_way(server.address):
        assert error.retryable
        assert error.retry_after == 2


async def test_the_first_bad_field_names_the_error_where_the_info_does_not(server: Any, failure: Any) -> None:
    server.fail(failure(Code.INVALID_ARGUMENT, "bad", "INVALID_REQUEST", fields=("labels.a", "labels.b")))
    for error in await every_way(server.address):
        assert error.field == "labels.a"


async def test_broken_details_do_not_hide_the_status(server: Any) -> None:
    async def whole(request: Any, context: Any) -> None:
        await context.abort(Code.NOT_FOUND, "gone", (("grpc-status-details-bin", b"\xff\xff\xff"),))

    async def pieces(request: Any, context: Any) -> AsyncIterator[Any]:
        await whole(request, context)
        yield

    server.handlers |= {"Generate": whole, "StreamGenerate": pieces}
    for error in await every_way(server.address):
        assert type(error) is client.UnknownLLMError
        assert error.message == "gone"


async def test_an_error_within_a_stream_tells_the_text_that_came(server: Any, failure: Any) -> None:
    breaks = failure(Code.UNAVAILABLE, "broke", "ENGINE_CRASHED", pushback_ms=-1)

    async def pieces(request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.StreamGenerateResponse(started=pb.Started(id="1"))
        yield pb.StreamGenerateResponse(text_delta=pb.TextDelta(text="Once "))
        yield pb.StreamGenerateResponse(text_delta=pb.TextDelta(text="upon"))
        await breaks(request, context)

    server.handlers["StreamGenerate"] = pieces
    with RemoteLLM(server.address) as llm:
        with pytest.raises(client.EngineCrashedError) as caught:
            list(llm.generate("Hi", stream=True))
        assert caught.value.partial_text == "Once upon"
        with pytest.raises(client.EngineCrashedError) as caught:
            _ = [event async for event in llm.stream_async("Hi")]
        assert caught.value.partial_text == "Once upon"


async def test_a_stream_that_ends_well_without_finished_is_incomplete(server: Any) -> None:
    async def pieces(request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.StreamGenerateResponse(started=pb.Started(id="1"))
        yield pb.StreamGenerateResponse(text_delta=pb.TextDelta(text="Once"))

    server.handlers["StreamGenerate"] = pieces
    with RemoteLLM(server.address) as llm:
        with pytest.raises(client.IncompleteStreamError) as caught:
            list(llm.stream("Hi"))
        assert caught.value.partial_text == "Once"
        with pytest.raises(client.IncompleteStreamError) as caught:
            _ = [piece async for piece in await llm.generate_async("Hi", stream=True)]
        assert caught.value.partial_text == "Once"


async def test_methods_that_the_server_lacks_are_unsupported_features(server: Any, failure: Any) -> None:
    missing = failure(Code.UNIMPLEMENTED, "not yet", "UNSUPPORTED_FEATURE")
    server.handlers |= dict.fromkeys(("PullModel", "LoadModel", "UnloadModel"), missing.stream)
    with RemoteLLM(server.address) as llm:
        for progress in (llm.pull_model(), llm.load_model(), llm.unload_model()):
            with pytest.raises(client.UnsupportedFeatureError, match="not yet"):
                next(progress)
        for reports in (llm.pull_model_async(), llm.load_model_async(), llm.unload_model_async()):
            with pytest.raises(client.UnsupportedFeatureError, match="not yet"):
                await anext(reports)


async def test_a_deadline_ends_the_call_here_and_at_the_server(server: Any) -> None:
    server.go_on_for_ever()
    for error in await every_way(server.address, timeout=0.3):
        assert type(error) is client.GenerationTimeoutError
        assert error.reason is ErrorReason.TIMEOUT
        assert server.released.wait(60)


def test_a_call_s_timeout_goes_before_the_client_s(server: Any) -> None:
    server.go_on_for_ever()
    with RemoteLLM(server.address, timeout=3600) as llm, pytest.raises(client.GenerationTimeoutError):
        llm.generate("Hi", timeout=0.2)


async def test_nobody_listening_is_unavailable() -> None:
    for error in await every_way("127.0.0.1:1", **NO_RETRY):
        assert type(error) is client.ProviderUnavailableError
        assert error.retryable


async def test_a_request_beyond_the_message_limit_is_too_large(server: Any) -> None:
    server.say()
    with RemoteLLM(server.address) as llm:
        for call in (llm.generate, lambda prompt: list(llm.stream(prompt))):
            with pytest.raises(client.InvalidRequestError) as caught:
                call("x" * (16 * 1024 * 1024))
            assert caught.value.reason is ErrorReason.MESSAGE_TOO_LARGE
            assert caught.value.limit == 16 * 1024 * 1024
        with pytest.raises(client.InvalidRequestError) as caught:
            await llm.generate_async("x" * (16 * 1024 * 1024))
        assert caught.value.reason is ErrorReason.MESSAGE_TOO_LARGE
        assert server.requests == []


def test_an_answer_beyond_the_message_limit_is_too_large(server: Any) -> None:
    async def whole(request: Any, context: Any) -> pb.GenerateResponse:
        return pb.GenerateResponse(text="x" * int(request.prompt))

    server.handlers["Generate"] = whole
    options = [("grpc.max_receive_message_length", 1000)]
    with RemoteLLM(server.address, channel_options=options) as llm:
        assert len(llm.generate("900")) == 900
        with pytest.raises(client.InvalidRequestError) as caught:
            llm.generate("2000")
        assert caught.value.reason is ErrorReason.MESSAGE_TOO_LARGE
        assert (caught.value.limit, caught.value.requested) == (1000, 2003)
