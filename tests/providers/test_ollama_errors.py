"""The ollama provider when things go wrong: each fault ends in one documented error, and nothing hangs or leaks."""

import asyncio
import json
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
    RateLimitedError,
    ServerShuttingDownError,
    TextDelta,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    create_llm,
)
from tests.providers.fake_http import HANG, answering, gibibyte, gzip_bomb, hanging, in_turn, resetting, streaming
from tests.providers.ollama_server import answer, asking, chats, done, fails, line, raw, says, serves, shown

KEY = "ollama-canary-0123456789"
HANGING = serves(hanging)


async def failed(handler, **config):
    """The error that a request ends with, and what it came from."""
    async with asking(handler, api_key=KEY, **config) as (llm, server):
        with pytest.raises(AbstractLLMError) as caught:
            await asyncio.wait_for(llm.complete_async("Hi"), HANG)
        await server.settled(1)
    error = caught.value
    assert error.provider == "ollama"
    assert KEY not in "".join(traceback.format_exception(error))
    return error


@pytest.mark.parametrize(
    ("handler", "kind", "field"),
    [
        (fails(400, "invalid options: num_ctx"), InvalidRequestError, None),
        (fails(400, "registry/library/x does not support tools"), UnsupportedFeatureError, "tools"),
        (fails(400, '"x" does not support thinking'), UnsupportedParameterError, "parameters.reasoning_effort"),
        (fails(400, 'invalid think value: "max"'), InvalidRequestError, "parameters.reasoning_effort"),
        (fails(400, '"x" does not support chat'), UnsupportedFeatureError, "chat"),
        (fails(401, "unauthorized"), ProviderCredentialsError, None),
        (fails(403, "this model requires a subscription"), ProviderCredentialsError, None),
        (fails(404, "model 'x' not found"), ModelNotFoundError, "parameters.model"),
        (serves(answering("", 302, {"Location": "https://elsewhere.example"})), ConfigurationError, "base_url"),
        (fails(429, "you have reached your hourly usage limit"), RateLimitedError, None),
        (fails(500, "model requires more system memory (9 GiB) than is available"), ProviderUnavailableError, None),
        (fails(503, "server busy, please try again. maximum pending requests exceeded"), OverloadedError, None),
        (serves(answering("<html>Bad gateway</html>", 502)), ProviderUnavailableError, None),
        (serves(answering(b"\xff\xfe\x00{", 503)), ProviderUnavailableError, None),
        (serves(answering("[]", 500)), ProviderUnavailableError, None),
        (serves(answering({"error": {"message": "nested"}}, 400)), InvalidRequestError, None),
    ],
)
async def test_each_status_ends_in_its_error_with_status_and_field(handler, kind, field):
    error = await failed(handler)
    assert type(error) is kind
    assert f"HTTP {error.upstream_status}" in error.message
    assert error.field == field
    assert error.__cause__ is not None


async def test_what_the_server_said_is_kept():
    error = await failed(fails(500, "llama runner process has terminated: cudaMalloc failed"))
    assert error.message == "llama runner process has terminated: cudaMalloc failed (HTTP 500)"


def overflow(prompt, size):
    """The error of the server that runs the model, as newer servers hand it on: as text."""
    inner = {
        "code": 400,
        "message": f"request ({prompt} tokens) exceeds the available context size ({size} tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": prompt,
        "n_ctx": size,
    }
    return json.dumps({"error": inner})


@pytest.mark.parametrize(
    ("message", "requested", "limit"),
    [(overflow(2622, 512), 2622, 512), ("the input length exceeds the context length", None, None)],
)
async def test_a_prompt_that_does_not_fit_is_refused_with_the_servers_numbers(message, requested, limit):
    error = await failed(fails(400, message))
    assert type(error) is ContextLengthExceededError
    assert (error.requested, error.limit, error.field) == (requested, limit, "chat")


@pytest.mark.parametrize(
    ("config", "show"),
    [
        ({"provider_options": {"num_ctx": 512}}, shown()),
        ({}, shown(parameters="num_ctx 512")),
        ({}, shown(context_length=512)),
    ],
)
async def test_a_prompt_that_an_old_server_has_cut_silently_is_found_out(config, show):
    lines = [line("part"), done(prompt_eval_count=512, eval_count=11)]
    async with asking(says(lines, show=show), **config) as (llm, _):
        with pytest.raises(ContextLengthExceededError) as caught:
            await llm.complete_async("Hi " * 2000)
    assert (caught.value.limit, caught.value.requested, caught.value.partial_text) == (512, "at least 512", "part")
    assert caught.value.output_tokens == 11


async def test_a_prompt_that_just_fits_is_answered():
    lines = [line("whole"), done(prompt_eval_count=500, eval_count=12)]
    async with asking(says(lines), provider_options={"num_ctx": 512}) as (llm, _):
        assert (await llm.complete_async("Hi")).text == "whole"


async def test_what_may_pass_is_tried_again_after_the_wait_asked_for_and_the_attempts_are_listed():
    handler = in_turn(
        says([]),
        fails(429, "slow down", retry_after="0.2"),
        serves(resetting),
        fails(503, "server busy"),
        raw(json.dumps({"error": "runner crashed"}) + "\n"),
        says(answer("at last")),
    )
    # The first request asks for the model's abilities.
    async with asking(handler, max_retries=4) as (llm, server):
        completion = await llm.complete_async("Hi")
    assert completion.text == "at last"
    reasons = ["RATE_LIMITED", "PROVIDER_UNAVAILABLE", "OVERLOADED", "PROVIDER_UNAVAILABLE", ""]
    assert [attempt.error_reason for attempt in completion.attempts] == reasons
    assert len(chats(server)) == 5


@pytest.mark.parametrize(("retry_after", "seconds"), [("3", 3.0), (None, None)])
async def test_a_wait_that_the_server_asks_for_is_on_the_error(retry_after, seconds):
    assert (await failed(fails(429, "slow down", retry_after=retry_after))).retry_after == seconds


async def test_what_will_not_pass_is_not_tried_again():
    async with asking(fails(404, "model 'x' not found"), max_retries=3) as (llm, server):
        with pytest.raises(ModelNotFoundError):
            await llm.complete_async("Hi")
        assert len(chats(server)) == 1


@pytest.mark.parametrize(
    ("handler", "kind", "words"),
    [
        (serves(resetting), ProviderUnavailableError, "connection"),
        (serves(answering("<html>Sign in</html>")), ProviderProtocolError, "JSON"),
        (raw(), ProviderProtocolError, "no line"),
        (raw("{bad json\n"), ProviderProtocolError, "JSON"),
        (raw(b"\xff\xfe\n"), ProviderProtocolError, "cannot be read"),
        (raw("[1]\n"), ProviderProtocolError, "not a JSON object"),
        (raw("null\n"), ProviderProtocolError, "not a JSON object"),
        (raw('{"message": 7}\n'), ProviderProtocolError, "cannot be read"),
        (raw('{"message": {"content": 7}}\n'), ProviderProtocolError, "cannot be read"),
        (raw('{"message": {"tool_calls": [{}]}}\n'), ProviderProtocolError, "cannot be read"),
        (raw(line(tool_calls=[{"function": {"arguments": {}}}])), ProviderProtocolError, "cannot be"),
        (raw(line("a"), done("melted")), IncompleteStreamError, "melted"),
        (raw(line("")), IncompleteStreamError, "without its last line"),
        (raw('{"error": {"code": 500}}\n'), ProviderUnavailableError, "500"),
        (serves(streaming(gibibyte(b'{"a": "'))), ProviderProtocolError, "8388608 bytes"),
        (serves(streaming(gzip_bomb(), headers={"Content-Encoding": "gzip"})), ProviderProtocolError, "gzip"),
        (serves(streaming(gibibyte(), status=500)), ProviderUnavailableError, "HTTP 500"),
    ],
)
async def test_an_answer_that_is_none_ends_in_one_error_of_ours(handler, kind, words):
    error = await failed(handler)
    assert type(error) is kind, error
    assert words in error.message


@pytest.mark.parametrize("then", ["end", "close", "reset"])
async def test_an_answer_that_breaks_off_after_its_first_word_is_incomplete_and_keeps_its_text(then):
    error = await failed(says([line("par"), line("tial")], then=then), max_retries=2)
    assert type(error) is IncompleteStreamError
    assert error.partial_text == "partial"
    assert not error.retryable


@pytest.mark.parametrize("then", ["close", "reset", "hang"])
async def test_an_answer_that_is_whole_survives_what_its_connection_does_afterwards(then):
    async with asking(says(answer("whole"), then=then)) as (llm, server):
        completion = await asyncio.wait_for(llm.complete_async("Hi"), HANG)
        await server.settled()
    assert (completion.text, completion.finish_reason) == ("whole", "stop")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("llama runner process no longer running", ProviderUnavailableError),
        ("the input length exceeds the context length", ContextLengthExceededError),
        ("server busy, please try again", OverloadedError),
    ],
)
async def test_an_error_in_the_middle_of_the_answer_is_told_by_its_words_and_keeps_the_text(message, kind):
    error = await failed(raw(line("partial"), json.dumps({"error": message}) + "\n"), max_retries=2)
    assert type(error) is kind
    assert message in error.message
    assert error.partial_text == "partial"
    assert error.upstream_status is None


@pytest.mark.parametrize("handler", [serves(hanging), says([line("par")], then="hang"), hanging])
async def test_a_server_that_hangs_is_left_at_the_deadline_and_its_connection_closed(handler):
    async with asking(handler) as (llm, server):
        with pytest.raises(GenerationTimeoutError):
            await llm.complete_async("Hi", timeout=0.5)
        await server.settled()


async def test_leaving_a_stream_or_cancelling_a_call_closes_its_connection():
    seen = asyncio.Event()

    async def chat(exchange):
        try:
            await exchange.start(headers={})
            await exchange.send(line("one"))
            await exchange.gone()
        finally:
            seen.set()

    async with asking(serves(chat)) as (llm, server):
        async with aclosing(llm.stream_async("Hi")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        await asyncio.wait_for(seen.wait(), HANG)
        seen.clear()
        task = asyncio.create_task(llm.complete_async("Hi"))
        while len(chats(server)) < 2:  # noqa: ASYNC110 - the server is in this process
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait_for(seen.wait(), HANG)
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.settled()
        assert llm.running == 0


async def test_closing_the_llm_ends_its_running_requests_and_refuses_further_ones():
    async with asking(says([line("one")], then="hang")) as (llm, server):
        running = asyncio.create_task(llm.complete_async("Hi"))
        while not chats(server):  # noqa: ASYNC110 - the server is in this process
            await asyncio.sleep(0.005)
        await llm.close_async()
        with pytest.raises((ServerShuttingDownError, IncompleteStreamError)):
            await asyncio.wait_for(running, HANG)
        with pytest.raises(ServerShuttingDownError):
            await llm.complete_async("Hi")
        await server.settled()


@pytest.mark.parametrize(
    "show", [answering("<html>"), answering("[]"), answering({"capabilities": []}), answering("[]", 500)]
)
async def test_a_description_of_a_model_that_cannot_be_read_is_an_error_of_ours(show):
    async with asking(says(answer("ok"), show=show)) as (llm, _):
        with pytest.raises((ProviderProtocolError, ProviderUnavailableError)):
            await llm.get_capabilities_async()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
async def test_a_server_that_is_not_there_is_unavailable(url):
    async with create_llm("ollama", base_url=url, max_retries=0) as llm:
        for ask in (llm.cached_models, llm.get_capabilities_async, lambda: llm.complete_async("Hi")):
            with pytest.raises(ProviderUnavailableError, match="connect"):
                await ask()


async def test_a_missing_sdk_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ollama", None)
    async with create_llm("ollama") as llm:
        with pytest.raises(ConfigurationError, match=r"pip install 'abstractllm-grpc\[ollama\]'"):
            await llm.complete_async("Hi")


@pytest.mark.parametrize(
    "handler",
    [
        fails(401, f"invalid key: {KEY}"),
        serves(answering(f"<html>{KEY}</html>", 502)),
        raw(line("partial"), json.dumps({"error": KEY}) + "\n"),
        raw(KEY + "\n"),
        raw(json.dumps({"message": KEY}) + "\n"),
        says([line("a"), done(KEY)]),
        serves(resetting),
        HANGING,
        says(answer("ok")),
    ],
)
async def test_the_key_is_in_no_log_error_or_repr_even_if_the_server_repeats_it(handler, caplog):
    caplog.set_level(logging.DEBUG)
    async with asking(handler, api_key=KEY, timeout=1.0 if handler is HANGING else HANG) as (llm, server):
        told = repr(llm) + repr(llm.config) + str(llm.get_config())
        try:
            await llm.complete_async("Hi")
        except AbstractLLMError as error:
            told += repr(error) + str(vars(error)) + "".join(traceback.format_exception(error))
            logging.getLogger("caller").exception("failed")
        assert chats(server)[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in told + caplog.text
