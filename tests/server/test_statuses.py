"""Every failure ends with the status, the details and the retry advice that the contract's table promises."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import cast

import pytest

from abstractllm import errors
from abstractllm.config import LLMConfig
from abstractllm.errors import AbstractLLMError, ErrorReason
from abstractllm.requests import GenerationRequest
from abstractllm.testing import ScriptedProvider
from abstractllm.types import Event, TextDelta
from abstractllm_api.v1 import errors_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.support import Serving, collect, failure, request, serving

# reason | Python class | code | retry, as in the contract
TABLE = """
INVALID_REQUEST         | InvalidRequestError        | INVALID_ARGUMENT    | no
UNSUPPORTED_PARAMETER   | UnsupportedParameterError  | INVALID_ARGUMENT    | no
CONTEXT_LENGTH_EXCEEDED | ContextLengthExceededError | INVALID_ARGUMENT    | no
MESSAGE_TOO_LARGE       | InvalidRequestError        | RESOURCE_EXHAUSTED  | never
UNSUPPORTED_FEATURE     | UnsupportedFeatureError    | UNIMPLEMENTED       | no
UNKNOWN_LLM             | UnknownLLMError            | NOT_FOUND           | no
MODEL_NOT_FOUND         | ModelNotFoundError         | NOT_FOUND           | no
UNAUTHENTICATED         | AuthenticationError        | UNAUTHENTICATED     | no
NOT_ALLOWED             | PermissionDeniedError      | PERMISSION_DENIED   | no
PROVIDER_CREDENTIALS    | ProviderCredentialsError   | FAILED_PRECONDITION | no
NOT_CONFIGURED          | ConfigurationError         | FAILED_PRECONDITION | no
MODEL_LOAD_FAILED       | ModelLoadError             | FAILED_PRECONDITION | no
MODEL_IN_USE            | ModelInUseError            | FAILED_PRECONDITION | no
CONTENT_BLOCKED         | ContentBlockedError        | FAILED_PRECONDITION | no
RATE_LIMITED            | RateLimitedError           | RESOURCE_EXHAUSTED  | yes
OVERLOADED              | OverloadedError            | RESOURCE_EXHAUSTED  | yes
QUOTA_EXCEEDED          | QuotaExceededError         | RESOURCE_EXHAUSTED  | never
PROVIDER_UNAVAILABLE    | ProviderUnavailableError   | UNAVAILABLE         | yes
PROVIDER_PROTOCOL       | ProviderProtocolError      | UNAVAILABLE         | yes
INCOMPLETE_STREAM       | IncompleteStreamError      | UNAVAILABLE         | never
ENGINE_CRASHED          | EngineCrashedError         | UNAVAILABLE         | yes
SHUTTING_DOWN           | ServerShuttingDownError    | UNAVAILABLE         | yes
TIMEOUT                 | GenerationTimeoutError     | DEADLINE_EXCEEDED   | no
CANCELLED               | GenerationCancelledError   | CANCELLED           | no
STALE_CONFIG            | StaleConfigError           | ABORTED             | no
INTERNAL                | InternalError              | INTERNAL            | no
UPSTREAM_REJECTED       | UpstreamRejectedError      | FAILED_PRECONDITION | no
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()]


def failing(error: BaseException, after: str = "") -> ScriptedProvider:
    return ScriptedProvider(script=[TextDelta(after), error] if after else [error])


def test_table_has_every_reason_of_the_contract() -> None:
    numbered = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()[1:]]
    assert [row[0] for row in ROWS] == numbered == list(ErrorReason)


@pytest.mark.parametrize("after", ["", "half "], ids=["first", "midway"])
@pytest.mark.parametrize(("reason", "name", "code", "retry"), ROWS, ids=[row[0] for row in ROWS])
async def test_reason_has_its_code_details_and_retry_advice(
    reason: str, name: str, code: str, retry: str, after: str
) -> None:
    error: AbstractLLMError = getattr(errors, name)("what went wrong", reason=ErrorReason(reason), retry_after=1.25)
    async with serving({"bad": failing(error, after)}) as served:
        unary = await failure(served.generation.Generate(request(request_id="mine")))
        stream = await failure(collect(served.generation.StreamGenerate(request(request_id="mine"))))
    for refusal in (unary, stream):
        assert (refusal.code.name, refusal.reason) == (code, reason)
        assert refusal.metadata["llm"] == "bad"
        assert refusal.metadata["provider"] == "scripted"
        assert refusal.metadata["request_id"] == "mine"
        assert refusal.retry_delays == ([1.25] if retry == "yes" else [])
        assert refusal.pushbacks == {"yes": ["1250"], "never": ["-1"], "no": []}[retry]
        assert ("what went wrong" in refusal.message) is (reason != "INTERNAL")


async def test_error_of_an_answer_that_is_billed_tells_clients_not_to_repeat_it_by_themselves() -> None:
    error = errors.ProviderProtocolError("a malformed answer")
    error.is_billed = True
    async with serving({"bad": failing(error)}) as served:
        refusal = await failure(served.generation.Generate(request()))
    assert (refusal.reason, refusal.retry_delays, refusal.pushbacks) == ("PROVIDER_PROTOCOL", [1.0], ["-1"])


async def test_bad_request_names_the_field_and_the_metadata_its_limit(served: Serving) -> None:
    error = await failure(
        served.generation.Generate(request(parameters=pb.GenerationParameters(temperature=3), request_id="r1"))
    )
    assert error.fields == ["parameters.temperature"]
    assert {
        "limit": "at most 2",
        "requested": "3.0",
        "field": "parameters.temperature",
        "request_id": "r1",
    }.items() <= (error.metadata.items())
    for part in ("parameters.temperature", "at most 2", "3.0"):
        assert part in error.message


@pytest.mark.parametrize("letter", ["x", "é", "漢", "😀", "\n", "\ud800"])
async def test_details_fit_the_trailers_however_long_the_texts_are(letter: str) -> None:
    text = letter * 100_000
    error = errors.RateLimitedError(
        text,
        retry_after=2,
        provider=text,
        llm=text,
        model=text,
        upstream_status=429,
        request_id=text,
        field=text,
        limit=text,
        requested=text,
        output_tokens=5,
    )
    invalid = errors.InvalidRequestError(text, **dict.fromkeys(("llm", "model", "field", "limit", "requested"), text))
    async with serving({"long": failing(error), "invalid": failing(invalid)}) as served:
        refusal = await failure(served.generation.Generate(request()))
        also = await failure(
            served.generation.Generate(request(llm="invalid", request_id=letter.strip("\ud800") * 256))
        )
    assert (refusal.code.name, refusal.reason, refusal.retry_delays) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", [2])
    assert (also.code.name, also.reason, len(also.fields)) == ("INVALID_ARGUMENT", "INVALID_REQUEST", 1)
    assert max(refusal.trailer_bytes, also.trailer_bytes) < 8 * 1024


@pytest.mark.parametrize("retry_after", [-5.0, 0.0, 1e9, 1e300, float("inf"), float("nan")])
async def test_absurd_retry_delay_keeps_the_status(retry_after: float) -> None:
    async with serving({"bad": failing(errors.RateLimitedError("slow down", retry_after=retry_after))}) as served:
        error = await failure(served.generation.Generate(request()))
    assert error.reason == "RATE_LIMITED"
    (delay,), (pushback,) = error.retry_delays, error.pushbacks
    assert 0 <= delay <= 86_400
    assert 0 <= int(pushback) < 2**31


class _Failing(ScriptedProvider):
    """Fails in a way of its own wherever it is asked."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        yield TextDelta("half")
        raise self.error

    async def count(self, request: GenerationRequest, config: LLMConfig) -> int:
        raise self.error


class _Unlisted(BaseException):
    """An exception that `except Exception` does not see."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("s3cret in the text"),
        errors.InternalError("s3cret in the text"),
        SystemExit("s3cret in the text"),
        _Unlisted("s3cret in the text"),
        StopIteration("s3cret in the text"),
        asyncio.CancelledError("s3cret in the text"),
        ExceptionGroup("s3cret in the text", [ValueError("inner")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_unexpected_failure_is_internal_hides_its_text_and_is_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    message = pb.CountTokensRequest(prompt="x")
    async with serving({"echo": ScriptedProvider(), "bad": _Failing(error)}) as served:
        failures = [
            await failure(served.generation.Generate(request(llm="bad", request_id="id-7"))),
            await failure(collect(served.generation.StreamGenerate(request(llm="bad", request_id="id-7")))),
            await failure(served.generation.CountTokens(pb.CountTokensRequest(prompt="x", llm="bad"))),
        ]
        assert (await served.generation.CountTokens(message)).input_tokens == 1
        await served.works()
    for refusal in failures:
        assert (refusal.code.name, refusal.reason) == ("INTERNAL", "INTERNAL")
        assert "s3cret" not in f"{refusal}"
        # Whoever reports the message gives the id under which the log has the rest.
        assert refusal.metadata["request_id"] in refusal.message
        records = [record for record in caplog.records if refusal.metadata["request_id"] in record.getMessage()]
        assert any("s3cret" in logging.Formatter().format(record) for record in records)
    assert [refusal.metadata["request_id"] for refusal in failures[:2]] == ["id-7", "id-7"]


async def test_builtin_timeout_of_a_provider_is_not_the_callers_deadline() -> None:
    async with serving({"bad": _Failing(TimeoutError("the socket's own"))}) as served:
        error = await failure(served.generation.Generate(request()))
    assert error.code.name == "INTERNAL"


class _Babbling(ScriptedProvider):
    """Gives text where an event is due, as a careless provider of another package might."""

    async def events(self, request: GenerationRequest, config: LLMConfig) -> AsyncGenerator[Event, None]:
        yield cast(Event, "text")


async def test_provider_whose_event_is_none_fails_as_internal() -> None:
    async with serving({"bad": _Babbling()}) as served:
        unary = await failure(served.generation.Generate(request()))
        stream = await failure(collect(served.generation.StreamGenerate(request())))
    assert (unary.code.name, unary.reason) == (stream.code.name, stream.reason) == ("INTERNAL", "INTERNAL")


async def test_method_that_does_not_exist_is_unimplemented(served: Serving) -> None:
    for path in ("/abstractllm_api.v1.GenerationService/Delete", "/a/b", "/", "/abstractllm_api.v2.X/Generate"):
        error = await failure(served.channel.unary_unary(path)(b""))
        assert error.code.name == "UNIMPLEMENTED"
    await served.works()
