"""Every empty list and map means unset, as None does: in requests, parameters and configurations."""

import pytest

from abstractllm.parameters import GenerationParameters, parse_parameters
from abstractllm.providers.openai.config import OpenAIConfig
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider


@pytest.mark.parametrize("values", [{"stop": []}, {"stop": ()}, {"logit_bias": {}}, {"stop": None}])
def test_an_empty_parameter_is_unset(values):
    assert parse_parameters(values).set_fields() == {}
    assert make_request("Hi", **values).parameters.set_fields() == {}


def test_an_empty_parameter_leaves_the_default_of_the_configuration():
    defaults = GenerationParameters(stop=("x",), logit_bias={1: 1.0})
    assert GenerationParameters(stop=(), logit_bias={}).over(defaults).set_fields() == defaults.set_fields()
    with ScriptedProvider({"reply": "a x b", "stop": ["x"]}) as llm:
        assert llm.complete("Hi", stop=[]).text == "a "


@pytest.mark.parametrize("name", ["tools", "labels", "provider_options"])
def test_an_empty_option_of_a_request_is_unset(name):
    assert make_request("Hi", **{name: [] if name == "tools" else {}}) == make_request("Hi")


@pytest.mark.parametrize(
    "name", ["models", "accepted_parameters", "extra_body", "provider_options", "stop", "logit_bias"]
)
def test_an_empty_key_of_a_configuration_is_unset_and_clears_it(name):
    empty = {} if name in ("extra_body", "provider_options", "logit_bias") else []
    config = OpenAIConfig.parse({name: empty})
    assert config == OpenAIConfig()
    assert config.public() == OpenAIConfig().public()
    full = {
        "models": ["gpt-4o"],
        "accepted_parameters": ["seed"],
        "extra_body": {"a": 1},
        "provider_options": {"user": "u"},
        "stop": ["x"],
        "logit_bias": {1: 1.0},
    }
    changed = OpenAIConfig.parse({name: full[name]}).changed({name: empty})
    assert changed.public() == OpenAIConfig().public()
