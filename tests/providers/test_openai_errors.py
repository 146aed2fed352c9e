"""The openai provider when things go wrong: each fault ends in one documented error, and nothing hangs or leaks."""

import asyncio
import logging
import traceback
from contextlib import aclosing

import pytest

from abstractllm import (
    AbstractLLMError,
    ConfigurationError,
    ContentBlockedError,
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
    UnsupportedParameterError,
    UpstreamRejectedError,
    create_llm,
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
from tests.providers.openai_server import DONE, asking, chunk, event, failing, raw, saying, texts, usage_chunk

KEY = "sk-canary-0123456789"


async def failed(handler, **config):
    """The error that a request ends with, and what it came from."""
    async with asking(handler, api_key=KEY, **config) as (llm, _):
        with pytest.raises(AbstractLLMError) as caught:
            await asyncio.wait_for(llm.complete_async("Hi"), HANG)
    error = caught.value
    assert error.provider == "openai"
    assert KEY not in "".join(traceback.format_exception(error))
    return error


@pytest.mark.parametrize(
    ("handler", "kind", "facts"),
    [
        (failing(400, code="invalid_type", param="messages[0].content"), InvalidRequestError, "chat.messages"),
        (failing(400, code="unsupported_value", param="temperature"), UnsupportedParameterError, "parameters.temp"),
        (failing(400, code="unsupported_parameter", param="max_tokens"), UnsupportedParameterError, "max_tokens"),
        (failing(400, code="context_length_exceeded", param="messages"), ContextLengthExceededError, None),
        (failing(400, code="content_policy_violation"), ContentBlockedError, None),
        (failing(400, code="content_filter"), ContentBlockedError, None),
        (failing(401, code="invalid_api_key"), ProviderCredentialsError, None),
        (failing(403, "no"), ProviderCredentialsError, None),
        (failing(403, "country not supported"), UpstreamRejectedError, None),
        (failing(404, code="model_not_found"), ModelNotFoundError, None),
        (failing(404, "The model `m` does not exist.", code=404, kind="NotFoundError"), ModelNotFoundError, None),
        (answering({"detail": "Not Found"}, 404), ConfigurationError, "base_url"),
        (answering("<html>nginx</html>", 404), ConfigurationError, "base_url"),
        (answering("", 307, {"Location": "https://elsewhere.example/v1"}), ConfigurationError, "base_url"),
        (failing(409, "conflict"), ProviderUnavailableError, None),
        (failing(422, "no"), InvalidRequestError, None),
        (failing(429, code="rate_limit_exceeded"), RateLimitedError, None),
        (failing(429, code="insufficient_quota", kind="insufficient_quota"), QuotaExceededError, None),
        (failing(429, kind="insufficient_quota"), QuotaExceededError, None),
        (failing(500, "oops", kind="server_error"), ProviderUnavailableError, None),
        (answering("<html>Bad gateway</html>", 502), ProviderUnavailableError, None),
        (answering(b"\xff\xfe\x00{", 503), ProviderUnavailableError, None),
        (answering("", 529), OverloadedError, None),
    ],
)
async def test_each_status_ends_in_its_error_with_status_and_request_id(handler, kind, facts):
    error = await failed(handler)
    assert type(error) is kind
    assert error.upstream_status is not None
    assert f"HTTP {error.upstream_status}" in error.message
    assert (facts or "") in (error.field or "")
    assert type(error.__cause__).__module__.startswith("openai")


async def test_the_upstream_request_id_is_in_the_message():
    assert "request req_up" in (await failed(failing(500))).message


@pytest.mark.parametrize(
    ("message", "limit", "requested"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
            8192,
            9001,
        ),
        ("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it", 8192, 9001),
    ],
)
async def test_a_context_overflow_of_a_compatible_server_is_told_by_its_words_with_its_numbers(
    message, limit, requested
):
    error = await failed(failing(400, message, code=400, kind="BadRequestError"))
    assert type(error) is ContextLengthExceededError
    assert (error.limit, error.requested) == (limit, requested)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 2015 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({}, None),
    ],
)
async def test_a_wait_that_the_provider_asks_for_is_on_the_error(headers, seconds):
    assert (await failed(failing(429, headers=headers))).retry_after == seconds


async def test_what_may_pass_is_tried_again_after_the_wait_asked_for_and_the_attempts_are_listed():
    handler = in_turn(failing(429, headers={"Retry-After": "0.2"}), resetting, failing(503), saying("at last"))
    async with asking(handler, max_retries=3) as (llm, server):
        answer = await llm.complete_async("Hi")
    assert answer.text == "at last"
    reasons = ["RATE_LIMITED", "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", ""]
    assert [attempt.error_reason for attempt in answer.attempts] == reasons
    assert len(server.requests) == 4


@pytest.mark.parametrize("handler", [failing(429, code="insufficient_quota"), failing(401), failing(400)])
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
        (answering({"choices": []}), ProviderProtocolError, "application/json"),
        (raw(), ProviderProtocolError, "no event"),
        (raw(DONE), ProviderProtocolError, "no event"),
        (raw("data: {bad json\n\n"), ProviderProtocolError, "JSON"),
        (raw(b"data: \xff\xfe\n\n"), ProviderProtocolError, "Unicode"),
        (raw(event({"choices": []}), DONE), ProviderProtocolError, "without choices"),
        (raw(event({"choices": None}), DONE), ProviderProtocolError, "without choices"),
        (
            raw(event({"object": "error", "message": "no", "code": 400, "type": "BadRequestError"})),
            InvalidRequestError,
            "no",
        ),
        (raw(*[event(value) for value in ("[1]", "7", '"x"', "null")]), ProviderProtocolError, "cannot be read"),
        (raw(event({"choices": [{"index": 0, "delta": {"content": 7}}]})), ProviderProtocolError, "cannot be read"),
        (raw(event({"choices": [{"index": 0, "delta": "x"}]})), ProviderProtocolError, "cannot be read"),
        (raw(event({"choices": "x"})), ProviderProtocolError, "cannot be read"),
        (raw("data: " + "[" * 200_000 + "\n\n"), ProviderProtocolError, "RecursionError"),
        (answering("[" * 200_000, 500), ProviderUnavailableError, "HTTP 500"),
        (raw(chunk(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])), ProviderProtocolError, "name"),
        (raw(chunk(finish="melted"), DONE), IncompleteStreamError, "melted"),
        (raw(chunk(finish="error"), DONE), ProviderUnavailableError, "error"),
        (raw(chunk("", role="assistant"), DONE), IncompleteStreamError, "without a finish reason"),
        (streaming(gibibyte(b"data: ")), ProviderProtocolError, "8388608 bytes"),
        (streaming(gibibyte(b"", (b"data:" + b"x" * 1000 + b"\n") * 64)), ProviderProtocolError, "8388608 bytes"),
        (streaming(gibibyte(b"", b":" + b" " * 65533 + b"\n\n")), ProviderProtocolError, "268435456 bytes"),
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
    error = await failed(streaming([chunk("par"), chunk("tial")], then=then), max_retries=2)
    assert type(error) is IncompleteStreamError
    assert error.partial_text == "partial"
    assert not error.retryable


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_answer_that_is_whole_survives_the_loss_of_its_usage(then):
    async with asking(streaming([chunk("whole"), chunk(finish="stop")], then=then)) as (llm, _):
        answer = await llm.complete_async("Hi")
    assert (answer.text, answer.finish_reason, answer.usage.output_tokens) == ("whole", "stop", None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"message": "down", "type": "server_error", "code": None}, ProviderUnavailableError),
        ({"message": "slow down", "type": "x", "code": "rate_limit_exceeded"}, RateLimitedError),
        ({"message": "upstream", "code": 502}, ProviderUnavailableError),
        ({"message": "upstream", "code": 429}, RateLimitedError),
        ({"message": "bad", "type": "invalid_request_error", "code": None}, InvalidRequestError),
        ({"message": "filtered", "code": "content_filter"}, ContentBlockedError),
    ],
)
async def test_an_error_in_the_middle_of_the_stream_is_told_by_its_type_and_keeps_the_text(body, kind):
    error = await failed(raw(chunk("par"), chunk("tial"), event({"error": body})))
    assert type(error) is kind
    assert (error.partial_text, body["message"] in error.message) == ("partial", True)


@pytest.mark.parametrize("handler", [hanging, streaming([chunk("par")], then="hang")])
async def test_a_server_that_hangs_is_left_at_the_deadline_and_its_connection_closed(handler):
    async with asking(handler) as (llm, server):
        with pytest.raises(GenerationTimeoutError):
            await llm.complete_async("Hi", timeout=0.5)
        await server.settled()


async def test_leaving_a_stream_closes_its_connection():
    seen = asyncio.Event()

    async def handle(exchange):
        try:
            await exchange.start()
            await exchange.send(chunk("one"))
            await exchange.gone()
        finally:
            seen.set()

    async with asking(handle) as (llm, server):
        async with aclosing(llm.stream_async("Hi")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await asyncio.wait_for(seen.wait(), HANG)
        task = asyncio.create_task(llm.complete_async("Hi"))
        while len(server.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seen.clear()
        task.cancel()
        await asyncio.wait_for(seen.wait(), HANG)
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.settled()


async def test_closing_the_llm_ends_its_running_requests_and_refuses_further_ones():
    begun = asyncio.Event()

    async def handle(exchange):
        await exchange.start()
        await exchange.send(chunk("one"))
        begun.set()
        await exchange.gone()

    async with asking(handle) as (llm, server):
        running = asyncio.create_task(llm.complete_async("Hi"))
        await begun.wait()
        await llm.close_async()
        with pytest.raises(ServerShuttingDownError):
            await asyncio.wait_for(running, HANG)
        with pytest.raises(ServerShuttingDownError):
            await llm.complete_async("Hi")
        await server.settled()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "https://127.0.0.1:1/v1"])
async def test_a_server_that_is_not_there_is_unavailable(url):
    async with create_llm("openai", base_url=url, model="m", max_retries=0) as llm:
        with pytest.raises(ProviderUnavailableError, match="connect"):
            await llm.complete_async("Hi")


async def test_a_missing_sdk_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    async with create_llm("openai", api_key="sk-1") as llm:
        with pytest.raises(ConfigurationError, match=r"pip install 'abstractllm-grpc\[openai\]'"):
            await llm.complete_async("Hi")


@pytest.mark.parametrize(
    "handler",
    [
        failing(401, f"Incorrect API key provided: {KEY}"),
        failing(500, f"Bearer {KEY}"),
        answering(f"<html>{KEY}</html>", 502),
        raw(chunk("par"), event({"error": {"message": f"key {KEY}", "code": KEY}})),
        raw(f"data: {KEY}\n\n"),
        raw(chunk(finish=KEY), DONE),
        resetting,
        hanging,
        saying("ok"),
    ],
)
async def test_the_key_is_in_no_log_error_or_repr_even_if_the_server_repeats_it(handler, caplog):
    caplog.set_level(logging.DEBUG)
    async with asking(handler, api_key=KEY, timeout=1.0 if handler is hanging else HANG) as (llm, server):
        text = repr(llm) + repr(llm.config) + str(llm.get_config())
        try:
            await llm.complete_async("Hi")
        except AbstractLLMError as error:
            text += repr(error) + str(vars(error)) + "".join(traceback.format_exception(error))
            logging.getLogger("caller").exception("failed")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    # What the test's own server logs is not ours.
    text += caplog.text
    assert KEY not in text


@pytest.mark.parametrize(
    "handler",
    [
        failing(400, "half a \ud83d smile", param="\ud83d"),
        raw(chunk("par"), event({"error": {"message": "half a \ud83d smile"}})),
        raw(chunk("par\ud83d"), chunk(finish="\ud83d"), DONE),
    ],
)
async def test_half_a_character_of_the_provider_s_words_is_replaced(handler):
    error = await failed(handler)
    (error.message + str(error) + str(error.field) + error.partial_text).encode()


async def test_a_usage_chunk_before_the_end_and_comments_between_events_do_no_harm():
    pieces = [": keep-alive\n\n", usage_chunk(), chunk("a"), "\r\n: ping\r\n\r\n", chunk(finish="stop")]
    async with asking(streaming(pieces)) as (llm, _):
        answer = await llm.complete_async("Hi")
    assert (answer.text, answer.usage.input_tokens) == ("a", 11)


async def test_a_server_that_stays_after_the_end_holds_nobody_up():
    async with asking(streaming(texts("whole"), then="hang")) as (llm, _):
        answer = await asyncio.wait_for(llm.complete_async("Hi"), 5)
    assert (answer.text, answer.usage.output_tokens) == ("whole", 7)


async def test_empty_lines_of_mixed_kinds_end_events_too():
    pieces = [chunk("x" * 2**20).replace("\n\n", "\n\r\n")] * 9
    async with asking(streaming([*pieces, chunk(finish="stop"), DONE])) as (llm, _):
        answer = await llm.complete_async("Hi")
    assert len(answer.text) == 9 * 2**20
