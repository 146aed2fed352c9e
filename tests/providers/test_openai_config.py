"""The openai provider's keys, addresses, configuration and capabilities."""

import asyncio
import json

import pytest

from abstractllm import ConfigurationError, ProviderCredentialsError, Tool, ToolChoice, create_llm
from tests.providers.openai_server import asking, chunk, saying, texts, without_variables

WEATHER = Tool("weather", "Tells the weather", '{"type": "object", "properties": {"city": {"type": "string"}}}')


@pytest.fixture(autouse=True)
def _no_variables(request):
    if request.node.get_closest_marker("real_key"):
        yield
        return
    with without_variables():
        yield


async def test_keys_and_addresses_come_from_the_sdk_s_variables_but_never_go_to_another_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-own")
    assert create_llm("openai").config.key == "sk-own"
    assert create_llm("openai", api_key="sk-given").config.key == "sk-given"
    async with asking(saying("ok")) as (llm, server):
        await llm.complete_async("Hi")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        async with create_llm("openai", model="m") as other:
            await other.complete_async("Hi")
    without, by_environment = (request.headers for request in server.requests)
    assert (without["authorization"], "openai-organization" in without) == ("Bearer not-needed", False)
    assert (by_environment["authorization"], by_environment["openai-organization"]) == ("Bearer sk-own", "org-own")


@pytest.mark.parametrize("key", [None, ""])
async def test_without_a_key_openai_is_not_asked_and_the_llm_is_not_ready(key):
    llm = create_llm("openai", api_key=key)
    changes = []
    llm.on_change(lambda: changes.append(llm.state[0]))
    assert llm.state[0] == "failed"
    with pytest.raises(ProviderCredentialsError, match="OPENAI_API_KEY"):
        await llm.complete_async("Hi")
    llm.set_config(api_key="sk-1")
    assert changes == ["ready"]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"base_url": "ftp://host"}, "base_url"),
        ({"base_url": "http://user:secret@host/v1", "model": "m"}, "base_url"),
        ({"base_url": "http://host/v1"}, "model"),
        ({"accepted_parameters": ["heat"]}, "accepted_parameters"),
        ({"api_key": "sk-canary\n"}, "api_key"),
        ({"max_concurrent_requests": 0}, "max_concurrent_requests"),
        ({"max_tokens_parameter": "limit"}, "max_tokens_parameter"),
        ({"heat": 1}, "heat"),
    ],
)
def test_a_bad_configuration_is_refused_by_name(config, field):
    with pytest.raises(ConfigurationError) as caught:
        create_llm("openai", **config)
    assert caught.value.field == field
    assert "canary" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_new_configuration_makes_a_new_client_while_running_requests_keep_theirs():
    begun, release = asyncio.Event(), asyncio.Event()

    async def handle(exchange):
        await exchange.start()
        if exchange.request.headers["authorization"] == "Bearer sk-old":
            await exchange.send(chunk("old"))
            begun.set()
            await release.wait()
        for piece in texts("", exchange.request.headers["authorization"]):
            await exchange.send(piece)
        await exchange.end()

    async with asking(handle, api_key="sk-old") as (llm, server):
        running = asyncio.create_task(llm.complete_async("Hi"))
        await begun.wait()
        llm.set_config(api_key="sk-new")
        assert await llm.generate_async("Hi") == "Bearer sk-new"
        release.set()
        assert (await running).text == "oldBearer sk-old"
        await server.settled(connections=1)


async def test_capabilities_follow_the_table_and_the_configuration():
    async with create_llm("openai", model="gpt-4o", api_key="sk-1", max_concurrent_requests=7) as llm:
        found = await llm.describe()
    assert (found.tools, found.image_input, found.json_schema, found.logprobs, found.seed) == (True,) * 5
    assert (found.context_window, found.max_output_tokens, found.max_concurrent_requests) == (128_000, 16_384, 7)
    assert (found.regex, found.token_counting) == (False, False)


@pytest.mark.real_key("OPENAI_API_KEY")
async def test_openai_itself_answers_streams_and_calls_tools():
    async with create_llm("openai") as llm:
        answer = await llm.complete_async("What is the capital of France? One word.", max_tokens=200)
        assert "Paris" in answer.text
        assert answer.usage.output_tokens
        called = await llm.complete_async(
            "What is the weather in Bern?", tools=[WEATHER], tool_choice=ToolChoice(name="weather")
        )
        assert json.loads(called.tool_calls[0].arguments_json)["city"]


@pytest.mark.real_key("OPENAI_API_KEY")
async def test_openai_itself_refuses_a_wrong_key():
    async with create_llm("openai", api_key="sk-wrong") as llm:
        with pytest.raises(ProviderCredentialsError) as caught:
            await llm.complete_async("Hi")
    assert caught.value.upstream_status == 401
