"""The openai provider's keys, addresses, configuration and capabilities."""

import asyncio
import json

import pytest

from abstractllm import (
    ChatMessage,
    ConfigurationError,
    Image,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitedError,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    UnsupportedFeatureError,
    create_llm,
)
from abstractllm.providers.openai.models import DEFAULT_MODEL
from tests.providers.fake_http import answering, resetting
from tests.providers.openai_server import (
    asking,
    asking_openai,
    chunk,
    failing,
    saying,
    texts,
    without_variables,
)

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


async def test_an_idle_client_of_an_old_configuration_is_closed_at_once():
    async with asking(saying("ok"), api_key="sk-old") as (llm, server):
        await llm.complete_async("Hi")
        llm.set_config(temperature=0.5)
        await llm.complete_async("Hi")
        assert (server.connections, server.open) == (1, 1)
        llm.set_config(api_key="sk-new")
        await server.settled()


async def test_capabilities_follow_the_table_and_the_configuration():
    async with create_llm("openai", model="gpt-4o", api_key="sk-1", max_concurrent_requests=7) as llm:
        capabilities = await llm.get_capabilities_async()
    assert (
        capabilities.tools,
        capabilities.image_input,
        capabilities.json_schema,
        capabilities.logprobs,
        capabilities.seed,
    ) == (True,) * 5
    assert (capabilities.context_window, capabilities.max_output_tokens, capabilities.max_concurrent_requests) == (
        128_000,
        16_384,
        7,
    )
    assert (capabilities.regex, capabilities.token_counting) == (False, True)


async def test_at_openai_the_token_limit_has_its_new_name_and_the_default_model_takes_a_temperature():
    async with asking_openai(saying("ok"), organization="org-1", project="p-1") as (llm, server):
        await llm.complete_async("Hi", max_tokens=5, temperature=0.5)
    (sent,) = server.requests
    assert sent.path == "http://api.openai.com/v1/chat/completions"
    assert (sent.json["model"], sent.json["max_completion_tokens"], sent.json["temperature"]) == (DEFAULT_MODEL, 5, 0.5)
    assert (sent.headers["openai-organization"], sent.headers["openai-project"]) == ("org-1", "p-1")


async def test_openai_counts_a_conversation_s_tokens():
    conversation = [
        ChatMessage(Role.USER, (Text("What is this?"), Image(b"\x89PNG", "image/png"))),
        ChatMessage(Role.ASSISTANT, (ToolCall("c1", "weather", "{}"),)),
        ChatMessage(Role.TOOL, (ToolResult("c1", "sunny"),)),
    ]
    async with asking_openai(answering({"object": "response.input_tokens", "input_tokens": 42})) as (llm, server):
        assert (await llm.get_capabilities_async()).token_counting
        assert await llm.count_tokens_async(conversation, "Be brief", tools=[WEATHER]) == 42
    (sent,) = server.requests
    assert sent.path == "http://api.openai.com/v1/responses/input_tokens"
    assert sent.json == {
        "model": DEFAULT_MODEL,
        "input": [
            {"role": "system", "content": "Be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "strict": False,
                "name": "weather",
                "description": "Tells the weather",
                "parameters": json.loads(WEATHER.parameters_json_schema),
            }
        ],
    }


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answering("<html>Sign in</html>", headers={"Content-Type": "text/html"}), ProviderProtocolError),
        (answering("{", headers={"Content-Type": "application/json"}), ProviderProtocolError),
        (answering({"input_tokens": "many"}), ProviderProtocolError),
        (answering([]), ProviderProtocolError),
        (failing(429), RateLimitedError),
        (resetting, ProviderUnavailableError),
    ],
)
async def test_a_count_that_fails_ends_in_an_error_of_ours(handler, kind):
    async with asking_openai(handler) as (llm, _):
        with pytest.raises(kind):
            await llm.count_tokens_async("Hi")


async def test_a_compatible_server_is_not_asked_to_count():
    async with asking(saying("ok")) as (llm, server):
        with pytest.raises(UnsupportedFeatureError):
            await llm.count_tokens_async("Hi")
        assert (server.requests, (await llm.get_capabilities_async()).token_counting) == ([], False)


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
