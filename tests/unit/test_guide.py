"""The calls that AbstractLLM's implementation guide shows work, or are refused as `docs/guide.md` says."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from abstractllm import (
    AbstractLLMInterface,
    ConfigurationError,
    InvalidRequestError,
    ModelNotFoundError,
    ProviderCredentialsError,
    UnsupportedParameterError,
    create_llm,
)
from abstractllm.testing import ScriptedProvider
from tests.providers.openai_server import asking, saying

KEYLESS = {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "", "OPENAI_BASE_URL": "", "ANTHROPIC_BASE_URL": ""}


# Step 2 and 10: the interface and the package.


def test_the_package_exports_the_interface_and_the_factory() -> None:
    import abstractllm
    from abstractllm.interface import ModelCapability, ModelParameter

    assert {"AbstractLLMInterface", "create_llm"} <= set(abstractllm.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", abstractllm.__version__)
    assert (ModelParameter.MODEL, ModelCapability.STREAMING) == ("model", "streaming")


def test_an_llm_generates_tells_its_capabilities_and_takes_changes() -> None:
    llm: AbstractLLMInterface = create_llm("scripted", reply="Hello there")
    assert isinstance(llm, AbstractLLMInterface)
    assert llm.generate("Say hello", temperature=0.7, max_tokens=1, system_prompt="Be brief.") == "Hello"
    capabilities = llm.get_capabilities()
    assert capabilities["streaming"] is True
    assert capabilities["supports_system_prompt"] is True
    assert capabilities["max_tokens"] is None
    assert {"streaming", "max_tokens", "supports_system_prompt"} <= set(capabilities)
    config = llm.get_config()
    config["reply"] = "changed"
    assert llm.generate("Hi") == "Hello there"
    assert llm.set_config({"reply": "Bye"}) is not None
    assert llm.generate("Hi") == llm.get_config()["reply"] == "Bye"


# Step 3: the factory.


def test_an_unknown_provider_is_a_value_error_that_lists_the_others() -> None:
    with pytest.raises(ValueError, match=r"unknown provider 'mystery'; available: anthropic, .*openai"):
        create_llm("mystery")


@pytest.mark.parametrize("name", ["openai", "anthropic", "ollama", "huggingface"])
def test_the_factory_makes_the_guide_s_providers(name: str) -> None:
    import importlib

    module = importlib.import_module(f"abstractllm.providers.{name}")
    classes = {"openai": "OpenAI", "anthropic": "Anthropic", "ollama": "Ollama", "huggingface": "HuggingFace"}
    kind = getattr(module, f"{classes[name]}Provider")
    with create_llm(name) as llm:
        assert type(llm) is kind
    assert issubclass(kind, AbstractLLMInterface)


# Step 4: logging.


def test_requests_and_responses_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    from abstractllm.utils.logging import log_request, log_response, setup_logging

    setup_logging(level=logging.INFO)
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    log_request("openai", "Say hello", {"model": "m", "temperature": 0.7, "api_key": "sk-secret"})
    log_response("openai", "Hello")
    assert "provider=openai" in caplog.text
    assert "'temperature': 0.7" in caplog.text
    assert "prompt='Say hello'" in caplog.text
    assert "text='Hello'" in caplog.text
    assert "sk-secret" not in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


# Steps 6 to 8: the hosted providers.


def test_a_provider_takes_its_configuration_as_a_dictionary() -> None:
    from abstractllm.interface import ModelParameter
    from abstractllm.providers.openai import OpenAIProvider

    with OpenAIProvider(config={"api_key": "sk-1", ModelParameter.MODEL: "gpt-4.1"}) as llm:
        assert llm.config.model == llm.get_config()["model"] == "gpt-4.1"


async def test_a_hosted_provider_answers_with_text() -> None:
    async with asking(saying("Hel", "lo"), api_key="sk-1") as (llm, server):
        answer = await llm.generate_async("Say hello", "Be brief.", temperature=0.2, max_tokens=9)
        assert answer == "Hello"
    body: Any = server.requests[0].json
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello"},
    ]
    assert (body["temperature"], body["max_tokens"]) == (0.2, 9)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_missing_key_is_a_value_error(provider: str) -> None:
    with (
        mock.patch.dict(os.environ, KEYLESS),
        create_llm(provider) as llm,
        pytest.raises(ValueError, match="api_key is missing") as caught,
    ):
        llm.generate("Say hello")
    assert isinstance(caught.value, ProviderCredentialsError)


def test_keys_and_addresses_come_from_the_environment() -> None:
    variables = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "OLLAMA_BASE_URL": "http://127.0.0.1:9"}
    with mock.patch.dict(os.environ, variables | {"OLLAMA_HOST": ""}):
        configs = [create_llm(name).get_config() for name in ("openai", "anthropic", "ollama")]
    assert [configs[0]["api_key"], configs[1]["api_key"]] == ["**********"] * 2
    assert configs[2]["base_url"] == "http://127.0.0.1:9"


# Steps 9 and 9.5: local models and their cache.


def test_max_new_tokens_is_another_name_of_max_tokens() -> None:
    with create_llm("huggingface", max_new_tokens=512) as llm:
        assert llm.get_config()["max_tokens"] == 512
        assert llm.set_config(max_new_tokens=9)["max_tokens"] == 9
        assert "max_tokens" not in llm.set_config(max_new_tokens=None)
    with create_llm("scripted", reply="one two three") as llm:
        assert llm.generate("Hi", max_new_tokens=2) == llm.generate("Hi", max_tokens=2, max_new_tokens=2) == "one two"
        with pytest.raises(InvalidRequestError, match="max_new_tokens: is another name of max_tokens"):
            llm.generate("Hi", max_tokens=2, max_new_tokens=3)
    with pytest.raises(ConfigurationError, match="max_new_tokens: is another name of max_tokens") as caught:
        create_llm("huggingface", parameters={"max_tokens": 2}, max_new_tokens=3)
    assert caught.value.field == "parameters.max_new_tokens"


def test_the_cache_is_listed_and_cleared(tmp_path: Path) -> None:
    from abstractllm.providers.huggingface import HuggingFaceProvider

    assert HuggingFaceProvider.DEFAULT_CACHE_DIR == "~/.cache/abstractllm/models"
    cached = tmp_path / "models--google--gemma-7b"
    (cached / "blobs").mkdir(parents=True)
    (cached / "blobs" / "weights").write_bytes(b"w" * 100)
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(snapshot.name)
    cache_dir = str(tmp_path)
    for model in HuggingFaceProvider.list_cached_models(cache_dir):
        assert f"{model['name']} - {model['size']}".startswith("google/gemma-7b - 1")
        assert model["last_used"] is None or model["last_used"] > 0
    assert len(HuggingFaceProvider.list_cached_models(cache_dir)) == 1
    HuggingFaceProvider.clear_model_cache("google/gemma-7b", cache_dir)
    assert HuggingFaceProvider.list_cached_models(cache_dir) == []
    HuggingFaceProvider.clear_model_cache("google/gemma-7b", cache_dir)
    HuggingFaceProvider.clear_model_cache(cache_dir=cache_dir)
    assert HuggingFaceProvider.list_cached_models(str(tmp_path / "absent")) == []


def test_a_local_llm_takes_the_guide_s_keys(tmp_path: Path) -> None:
    with create_llm("huggingface", model="google/gemma-7b", cache_dir=str(tmp_path), device_map="auto") as llm:
        assert llm.get_config()["cache_dir"] == str(tmp_path)
    with create_llm("huggingface", model="google/gemma-7b", load_in_8bit=True) as llm:
        assert llm.get_config()["quantization"] == "int8"


# What is refused; the reasons stand in docs/guide.md.


def test_a_provider_implements_events_not_generate() -> None:
    class Provider(AbstractLLMInterface):
        provider = "old"

        def generate(self, prompt: str, **kwargs: Any) -> str:
            return "never"

    with pytest.raises(TypeError, match=r"abstract methods? .*capabilities.*events"):
        Provider()


def test_a_configuration_is_no_dictionary_to_write_into() -> None:
    llm: Any = ScriptedProvider()
    with pytest.raises(TypeError):
        llm.config["model"] = "another"
    with pytest.raises(ValueError, match="frozen"):
        llm.config.model = "another"


@pytest.mark.parametrize("name", ["api_key", "base_url", "anything"])
def test_a_call_takes_no_keys_of_the_configuration_and_none_unknown(name: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        ScriptedProvider().generate("Hi", **{name: "x"})
    assert caught.value.field == f"parameters.{name}"


def test_a_call_names_only_models_that_are_configured() -> None:
    with pytest.raises(ModelNotFoundError):
        ScriptedProvider().generate("Hi", model="another")


def test_a_missing_package_is_a_configuration_error() -> None:
    with (
        mock.patch.dict("sys.modules", {"openai": None}),
        create_llm("openai", api_key="sk-1") as llm,
        pytest.raises(ConfigurationError, match=r"openai is not installed: pip install '.*\[openai\]'"),
    ):
        llm.generate("Hi")
