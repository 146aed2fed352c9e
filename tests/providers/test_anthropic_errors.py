"""The anthropic provider when things go wrong: each fault ends in one documented error, and nothing hangs or leaks."""

import asyncio
import logging
import sys
import traceback
from contextlib import aclosing

import pytest

from abstractllm import (
    AbstractLLMError,
    ConfigurationError,
    ContextLengthExceededError,
    GenerationTimeoutError,
    IncompleteStreamError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    ServerShuttingDownError,
    TextDelta,
    UpstreamRejectedError,
    create_llm,
)
from tests.providers.anthropic_server import (
    answer,
    asking,
    block,
    error_body,
    event,
    fails,
    raw,
    says,
    start,
    stop,
    text,
    tool_use,
)
from tests.providers.fake_http import (
    EVENT_STREAM,
    HANG,
    answering,
    gibibyte,
    gzip_bomb,
    hanging,
    in_turn,
    resetting,
    streaming,
)

KEY = "sk-ant-canary-0123456789"
BEGUN = [start(), *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "partial"})[:2]]


async def failed(handler, **config):
    """The error that a request ends with, and what it came from."""
    async with asking(handler, api_key=KEY, **config) as (llm, server):
        with pytest.raises(AbstractLLMError) as caught:
            await asyncio.wait_for(llm.complete_async("Hi"), HANG)
        await server.settled(1)
    error = caught.value
    assert error.provider == "anthropic"
    assert KEY not in "".join(traceback.format_exception(error))
    return error


@pytest.mark.parametrize(
    ("handler", "kind", "field"),
    [
        (fails(400, "invalid_request_error", "messages.0.content: empty"), InvalidRequestError, "chat.messages"),
        (
            fails(400, "invalid_request_error", "max_tokens: 200000 > 128000"),
            InvalidRequestError,
            "parameters.max_tokens",
        ),
        (fails(400, "invalid_request_error", "Something else"), InvalidRequestError, None),
        (fails(400, "invalid_request_error", "Your credit balance is too low to access"), QuotaExceededError, None),
        (fails(401, "authentication_error", "invalid x-api-key"), ProviderCredentialsError, None),
        (fails(402, "billing_error"), QuotaExceededError, None),
        (fails(403, "permission_error"), ProviderCredentialsError, None),
        (fails(404, "not_found_error", "model: claude-9"), ModelNotFoundError, None),
        (answering("<html>nginx</html>", 404), ConfigurationError, "base_url"),
        (answering("", 307, {"Location": "https://elsewhere.example"}), ConfigurationError, "base_url"),
        (answering("", 408), ProviderUnavailableError, None),
        (fails(409, "conflict_error"), ProviderUnavailableError, None),
        (fails(413, "request_too_large", "Request exceeds the maximum size"), UpstreamRejectedError, None),
        (fails(429, "rate_limit_error"), RateLimitedError, None),
        (fails(429, "rate_limit_error", error_code="enforced_spend_limit_reached"), QuotaExceededError, None),
        (fails(500, "api_error"), ProviderUnavailableError, None),
        (answering("<html>Bad gateway</html>", 502), ProviderUnavailableError, None),
        (answering(b"\xff\xfe\x00{", 503), ProviderUnavailableError, None),
        (answering("[]", 500), ProviderUnavailableError, None),
        (fails(504, "timeout_error"), ProviderUnavailableError, None),
        (fails(529, "overloaded_error"), OverloadedError, None),
        (answering("", 529), OverloadedError, None),
    ],
)
async def test_each_status_ends_in_its_error_with_status_and_field(handler, kind, field):
    error = await failed(handler)
    assert type(error) is kind
    assert f"HTTP {error.upstream_status}" in error.message
    assert error.field == field
    assert type(error.__cause__).__module__.startswith("anthropic")


async def test_the_upstream_request_id_is_in_the_message():
    error = await failed(fails(500, "api_error", "Internal server error"))
    assert error.message == "Internal server error (HTTP 500, request req_011)"


@pytest.mark.parametrize(
    ("message", "requested", "limit"),
    [
        ("prompt is too long: 208310 tokens > 200000 maximum", 208310, 200000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", 209573, 200000),
        ("prompt is too long", None, None),
    ],
)
async def test_a_prompt_that_is_too_long_is_told_by_its_words_with_its_numbers(message, requested, limit):
    error = await failed(fails(400, "invalid_request_error", message))
    assert type(error) is ContextLengthExceededError
    assert (error.requested, error.limit) == (requested, limit)


async def test_what_may_pass_is_tried_again_after_the_wait_asked_for_and_the_attempts_are_listed():
    handler = in_turn(
        fails(429, "rate_limit_error", retry_after="0.2"),
        resetting,
        fails(529, "overloaded_error"),
        raw(event("error", error={"type": "overloaded_error", "message": "Overloaded"})),
        says(answer("at last")),
    )
    async with asking(handler, max_retries=4) as (llm, server):
        completion = await llm.complete_async("Hi")
    assert completion.text == "at last"
    reasons = ["RATE_LIMITED", "PROVIDER_UNAVAILABLE", "OVERLOADED", "OVERLOADED", ""]
    assert [attempt.error_reason for attempt in completion.attempts] == reasons
    assert completion.attempts[0].duration < completion.timing.total - 0.2
    assert len(server.requests) == 5


@pytest.mark.parametrize(("retry_after", "seconds"), [("3", 3.0), (None, None)])
async def test_a_wait_that_the_provider_asks_for_is_on_the_error(retry_after, seconds):
    assert (await failed(fails(429, "rate_limit_error", retry_after=retry_after))).retry_after == seconds


async def test_a_wait_that_would_pass_the_deadline_is_not_waited_for():
    async with asking(fails(429, "rate_limit_error", retry_after="9999"), max_retries=2) as (llm, server):
        with pytest.raises(RateLimitedError):
            await asyncio.wait_for(llm.complete_async("Hi", timeout=5), HANG)
        assert len(server.requests) == 1


@pytest.mark.parametrize("handler", [fails(402, "billing_error"), fails(401, "authentication_error")])
async def test_what_will_not_pass_is_not_tried_again(handler):
    async with asking(handler, max_retries=3) as (llm, server):
        with pytest.raises(AbstractLLMError):
            await llm.complete_async("Hi")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("handler", "kind", "words"),
    [
        (resetting, ProviderUnavailableError, "connection"),
        (answering("<html>Sign in</html>", headers={"Content-Type": "text/html"}), ProviderProtocolError, "text/html"),
        (answering({"type": "message", "content": []}), ProviderProtocolError, "application/json"),
        (raw(), ProviderProtocolError, "no event"),
        (raw("data: no name\n\n"), ProviderProtocolError, "no event"),
        (raw("event: message_start\ndata: {bad json\n\n"), ProviderProtocolError, "JSON"),
        (raw(b"event: message_start\ndata: \xff\xfe\n\n"), ProviderProtocolError, "Unicode"),
        (raw(*(f"event: message_start\ndata: {value}\n\n" for value in ("[1]",))), ProviderProtocolError, "cannot be"),
        (raw("event: message_start\ndata: null\n\n"), ProviderProtocolError, "cannot be read"),
        (raw(event("message_start")), ProviderProtocolError, "cannot be read"),
        (raw(event("content_block_delta", index=3, delta={"type": "text_delta"})), ProviderProtocolError, "cannot be"),
        (raw(start(), *block(0, {"type": "text", "text": 7})), ProviderProtocolError, "cannot be read"),
        (raw(start(), *tool_use(0, "t", "f", 7)), ProviderProtocolError, "cannot be read"),
        (raw(start()), IncompleteStreamError, "without a stop reason"),
        (raw(start(), *stop("melted")), IncompleteStreamError, "melted"),
        (raw(start(), *stop(None)), IncompleteStreamError, "without a stop reason"),
        (streaming(gibibyte(b"event: ping\ndata: ")), ProviderProtocolError, "8388608 bytes"),
        (streaming(gzip_bomb(), headers=EVENT_STREAM | {"Content-Encoding": "gzip"}), ProviderProtocolError, "gzip"),
        (streaming(gibibyte(), status=500), ProviderUnavailableError, "HTTP 500"),
        (streaming(gzip_bomb(), status=500, headers={"Content-Encoding": "gzip"}), ProviderUnavailableError, "500"),
    ],
)
async def test_an_answer_that_is_none_ends_in_one_error_of_ours(handler, kind, words):
    error = await failed(handler)
    assert type(error) is kind, error
    assert words in error.message


@pytest.mark.parametrize("then", ["end", "close", "reset"])
async def test_an_answer_that_breaks_off_after_its_first_word_is_incomplete_and_keeps_its_text(then):
    error = await failed(says(BEGUN, then=then), max_retries=2)
    assert type(error) is IncompleteStreamError
    assert error.partial_text == "partial"
    assert not error.retryable


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
async def test_an_answer_that_is_whole_survives_what_its_connection_does_afterwards(then):
    async with asking(says(answer("whole"), then=then)) as (llm, server):
        completion = await asyncio.wait_for(llm.complete_async("Hi"), HANG)
        await server.settled()
    assert (completion.text, completion.finish_reason) == ("whole", "stop")


async def test_a_stop_reason_without_the_last_event_is_enough():
    async with asking(says([start(), *text(0, "whole"), *stop()][:-1])) as (llm, _):
        assert (await llm.complete_async("Hi")).text == "whole"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", OverloadedError),
        ("api_error", ProviderUnavailableError),
        ("rate_limit_error", RateLimitedError),
        ("timeout_error", ProviderUnavailableError),
        ("invalid_request_error", InvalidRequestError),
        ("authentication_error", ProviderCredentialsError),
    ],
)
async def test_an_error_in_the_middle_of_the_stream_is_told_by_its_type_and_keeps_the_text(kind, expected):
    error = await failed(raw(*BEGUN, event("error", **error_body(kind, "Something")), then="hang"), max_retries=2)
    assert type(error) is expected
    assert (error.partial_text, error.upstream_status) == ("partial", 200)


async def test_an_error_in_the_stream_that_cannot_be_read_is_still_an_error_of_ours():
    error = await failed(raw(*BEGUN, "event: error\ndata: {oops\n\n"))
    assert isinstance(error, AbstractLLMError)
    assert type(error) is not AbstractLLMError
    assert error.partial_text == "partial"


@pytest.mark.parametrize("handler", [hanging, says(BEGUN, then="hang")])
async def test_a_server_that_hangs_is_left_at_the_deadline_and_its_connection_closed(handler):
    async with asking(handler) as (llm, server):
        with pytest.raises(GenerationTimeoutError):
            await llm.complete_async("Hi", timeout=0.5)
        await server.settled()


async def test_leaving_a_stream_or_cancelling_a_call_closes_its_connection():
    seen = asyncio.Event()

    async def handle(exchange):
        try:
            await exchange.start()
            for piece in BEGUN:
                await exchange.send(piece)
            await exchange.gone()
        finally:
            seen.set()

    async with asking(handle) as (llm, server):
        async with aclosing(llm.stream_async("Hi")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await asyncio.wait_for(seen.wait(), HANG)
        seen.clear()
        task = asyncio.create_task(llm.complete_async("Hi"))
        while len(server.requests) < 2:  # noqa: ASYNC110 - the server is in this process
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(seen.wait(), HANG)
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.settled()
        assert llm.running == 0


async def test_closing_the_llm_ends_its_running_requests_and_refuses_further_ones():
    async with asking(says(BEGUN, then="hang")) as (llm, server):
        running = asyncio.create_task(llm.complete_async("Hi"))
        while not server.requests:  # noqa: ASYNC110 - the server is in this process
            await asyncio.sleep(0.005)
        await llm.close_async()
        with pytest.raises((ServerShuttingDownError, IncompleteStreamError)):
            await asyncio.wait_for(running, HANG)
        with pytest.raises(ServerShuttingDownError):
            await llm.complete_async("Hi")
        await server.settled()


@pytest.mark.parametrize(
    "handler",
    [
        answering("<html>Sign in</html>", headers={"Content-Type": "text/html"}),
        answering({"tokens": 3}),
        answering("[]", headers={"Content-Type": "application/json"}),
        answering("{bad", headers={"Content-Type": "application/json"}),
    ],
)
async def test_a_count_that_is_none_is_an_error_of_ours(handler):
    async with asking(handler) as (llm, _):
        with pytest.raises(ProviderProtocolError):
            await llm.count_tokens_async("Hi")


async def test_a_count_that_fails_ends_in_the_same_errors():
    async with asking(fails(404, "not_found_error", "model: claude-9")) as (llm, _):
        with pytest.raises(ModelNotFoundError):
            await llm.count_tokens_async("Hi")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
async def test_a_server_that_is_not_there_is_unavailable(url):
    async with create_llm("anthropic", base_url=url, api_key="sk-1", max_retries=0) as llm:
        with pytest.raises(ProviderUnavailableError, match="connect"):
            await llm.complete_async("Hi")


async def test_a_missing_sdk_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "anthropic", None)
    async with create_llm("anthropic", api_key="sk-1") as llm:
        with pytest.raises(ConfigurationError, match=r"pip install 'abstractllm-grpc\[anthropic\]'"):
            await llm.complete_async("Hi")


@pytest.mark.parametrize(
    "handler",
    [
        fails(401, "authentication_error", f"invalid key: {KEY}"),
        fails(500, "api_error", f"Bearer {KEY}"),
        answering(f"<html>{KEY}</html>", 502),
        answering(KEY),
        raw(*BEGUN, event("error", **error_body("api_error", KEY))),
        raw(f"event: message_start\ndata: {KEY}\n\n"),
        raw(start(), *stop(KEY)),
        resetting,
        hanging,
        says(answer("ok")),
    ],
)
async def test_the_key_is_in_no_log_error_or_repr_even_if_the_server_repeats_it(handler, caplog):
    caplog.set_level(logging.DEBUG)
    async with asking(handler, api_key=KEY, timeout=1.0 if handler is hanging else HANG) as (llm, server):
        told = repr(llm) + repr(llm.config) + str(llm.get_config())
        try:
            await llm.complete_async("Hi")
        except AbstractLLMError as error:
            told += repr(error) + str(vars(error)) + "".join(traceback.format_exception(error))
            logging.getLogger("caller").exception("failed")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in told + caplog.text
