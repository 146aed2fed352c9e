"""The configuration of an LLM: reading, changing, showing."""

import copy

import pytest
from pydantic import SecretStr

from abstractllm import ConfigurationError, ModelParameter, create_llm
from abstractllm.config import REDACTED, LLMConfig


class KeyedConfig(LLMConfig):
    api_key: SecretStr | None = None


def test_generation_parameters_may_stand_flat_or_nested():
    flat = LLMConfig.parse({"temperature": 0.5, ModelParameter.STOP: ["x"]})
    nested = LLMConfig.parse({"parameters": {"temperature": 0.5, "stop": ["x"]}})
    assert flat == nested
    assert flat.public()["temperature"] == 0.5
    assert flat.public()["stop"] == ["x"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("250ms", 0.25)])
def test_spans_are_read_with_their_units(text, seconds):
    assert LLMConfig.parse({"timeout": text}).timeout == seconds


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"temperature": 3}, "parameters.temperature"),
        ({"max_retries": 11}, "max_retries"),
        ({"parameters": 3}, "parameters"),
        ({"parameters": {"model": "x"}}, "parameters.model"),
    ],
)
def test_a_bad_key_or_value_is_named(values, field):
    with pytest.raises(ConfigurationError) as caught:
        LLMConfig.parse(values)
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


def test_the_callers_mapping_is_not_kept_and_the_shown_one_is_a_copy():
    options = {"provider_options": {"script": [{"text": "a"}]}}
    before = copy.deepcopy(options)
    with create_llm("scripted", **options) as llm:
        options["provider_options"]["script"].append("changed")
        shown = llm.get_config()
        shown["provider_options"]["script"].append("changed")
        assert llm.get_config()["provider_options"] == before["provider_options"]


def test_a_change_merges_and_none_clears():
    with create_llm("scripted", temperature=0.5, timeout=3) as llm:
        llm.set_config({"temperature": None}, max_tokens=7)
        assert llm.get_config().get("temperature") is None
        assert llm.get_config()["max_tokens"] == 7
        assert llm.get_config()["timeout"] == 3


def test_none_under_one_name_of_a_parameter_contradicts_no_value_under_the_other():
    with create_llm("scripted", max_new_tokens=None, max_tokens=5) as llm:
        assert llm.get_config()["max_tokens"] == 5
        llm.set_config(max_new_tokens=7, max_tokens=None)
        assert llm.get_config()["max_tokens"] == 7
        llm.set_config(max_new_tokens=None)
        assert "max_tokens" not in llm.get_config()


def test_a_refused_change_changes_nothing():
    with create_llm("scripted", temperature=0.5) as llm:
        with pytest.raises(ConfigurationError):
            llm.set_config(max_tokens=5, temperature=9)
        assert llm.get_config()["temperature"] == 0.5
        assert "max_tokens" not in llm.get_config()


def test_a_secret_is_never_shown():
    config = KeyedConfig.parse({"api_key": "sk-canary"})
    assert config.public()["api_key"] == REDACTED
    assert "canary" not in repr(config)
    with pytest.raises(ConfigurationError) as caught:
        KeyedConfig.parse({"api_key": ["sk-canary"]})
    assert "canary" not in repr(caught.value) + str(caught.value.requested)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (True, "must be a number, got True"),
        ("017", "must be a number in plain decimal digits"),
        ("1_0", "must be a number in plain decimal digits"),
        ("\u0663", "must be a number in plain decimal digits"),
        (1.5, "must be|valid integer"),
    ],
)
def test_a_limit_of_a_caller_is_a_number_that_everybody_reads_alike(value, fault):
    with pytest.raises(ConfigurationError, match=rf"callers\.\*\.max_running: .*({fault})") as caught:
        create_llm("openai", model="m", api_key="k", callers={"*": {"max_running": value}})
    assert caught.value.field == "callers.*.max_running"
