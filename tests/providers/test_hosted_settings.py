"""The keys of a hosted LLM's configuration for deployments and gateways."""

import logging

import pytest

from abstractllm import AbstractLLMError, ConfigurationError, create_llm
from abstractllm.providers.anthropic import AnthropicConfig
from abstractllm.providers.ollama import OllamaConfig
from abstractllm.providers.openai import OpenAIConfig
from tests.cases.hosted_upstream import Upstream
from tests.providers.fake_http import serving

SECRET = "a-canary-0123456789"
PROVIDERS = {"openai": OpenAIConfig, "anthropic": AnthropicConfig, "ollama": OllamaConfig}


@pytest.mark.parametrize("config", PROVIDERS.values())
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"extra_headers": {"bad name": "x"}}, "extra_headers"),
        ({"extra_headers": {"X-A": SECRET, "x-a": SECRET}}, "extra_headers"),
        ({"extra_headers": {"x": f"{SECRET}\r\nInjected: 1"}}, "extra_headers"),
        ({"extra_headers": {"x": f" {SECRET}"}}, "extra_headers"),
        ({"extra_headers": {"x": ""}}, "extra_headers"),
        ({"extra_headers": {"Content-Length": "1"}}, "extra_headers"),
        ({"extra_headers": {"Host": SECRET}}, "extra_headers"),
        ({"extra_headers": {"x": [SECRET]}}, "extra_headers.x"),
        ({"extra_headers": SECRET}, "extra_headers"),
        ({"extra_headers": {f"x{n}": "y" for n in range(33)}}, "extra_headers"),
        ({"extra_query": {"api_key": SECRET}}, "extra_query"),
        ({"extra_query": {"sig": "x"}}, "extra_query"),
        ({"api_key_header": "bad name"}, "api_key_header"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_by_its_key_and_not_repeated(config, values, field):
    with pytest.raises(ConfigurationError) as caught:
        config.parse(values)
    assert caught.value.field == field
    assert SECRET not in f"{caught.value} {caught.value.requested} {caught.value.limit}"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_values_of_headers_are_told_nowhere(provider, caplog):
    caplog.set_level(logging.DEBUG)
    upstream = Upstream(provider, [{"status": 400, "json": {"error": SECRET}}], None, whole=False)
    async with (
        serving(upstream.handle) as server,
        create_llm(
            provider, model="m", base_url=server.url, api_key="sk-1", max_retries=0, extra_headers={"x-token": SECRET}
        ) as llm,
    ):
        assert llm.get_config()["extra_headers"] == {"x-token": "**********"}
        with pytest.raises(AbstractLLMError) as caught:
            await llm.complete_async("Hi")
        assert upstream.requests[0]["headers"]["x-token"] == SECRET
        for words in (repr(llm.config), str(llm.get_config()), str(caught.value), repr(caught.value), caplog.text):
            assert SECRET not in words


def test_a_change_of_headers_or_query_makes_a_new_client():
    config = OpenAIConfig.parse({"extra_headers": {"a": "1"}, "extra_query": {"v": "1"}})
    connections = {
        config.connection,
        config.changed({"extra_headers": {"a": "2"}}).connection,
        config.changed({"extra_query": {"v": "2"}}).connection,
        config.changed({"api_key_header": "api-key"}).connection,
    }
    assert len(connections) == 4
    assert config.changed({"extra_headers": {"a": "1"}}).connection == config.connection


def test_a_query_in_the_address_is_refused_with_the_key_that_takes_it():
    with pytest.raises(ConfigurationError, match="extra_query"):
        OpenAIConfig.parse({"base_url": "https://example.org/v1?api-version=1", "model": "m"})


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_llm_with_a_header_in_the_keys_place_is_ready(provider, monkeypatch):
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with create_llm(provider, extra_headers={"Authorization": "Bearer x"}) as llm:
        assert llm.state[0] == "ready"
    with create_llm(provider, extra_headers={"x-title": "x"}) as llm:
        assert llm.state[0] == "failed"


def test_a_configuration_that_was_shown_and_given_back_keeps_its_secrets():
    config = OpenAIConfig.parse({"api_key": "sk-1", "extra_headers": {"x-a": SECRET}})
    shown = config.public() | {"extra_headers": {"x-a": "**********", "x-b": "new"}}
    changed = config.changed(shown)
    assert changed.key == "sk-1"
    assert {name: value.get_secret_value() for name, value in changed.extra_headers.items()} == {
        "x-a": SECRET,
        "x-b": "new",
    }
