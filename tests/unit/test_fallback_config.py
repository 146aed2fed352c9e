"""The configuration of a fallback: with LLM objects in a program, with names in a configuration file."""

import pytest

from abstractllm import ConfigurationError, LLMRegistry, create_llm
from tests.unit.fallbacks import falling_back, saying, scripted


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "llms"),
        ({"llms": []}, "llms"),
        ({"llms": "gpt"}, "llms"),
        ({"llms": ["gpt"]}, "llms[0]"),
        ({"llms": [scripted("a")] * 2}, "llms[1]"),
        ({"llms": [scripted("a")], "strategy": "random"}, "strategy"),
        ({"llms": [scripted("a")], "model": "gpt"}, "model"),
        ({"llms": [scripted("a")], "models": ["gpt"]}, "models"),
        ({"llms": [scripted("a")], "failure_threshold": 0}, "failure_threshold"),
        ({"llms": [scripted("a")], "cooldown_time": 0}, "cooldown_time"),
        ({"llms": [scripted("a")], "retries": 3}, "retries"),
    ],
)
def test_a_bad_configuration_is_refused_by_key(config, field):
    with pytest.raises(ConfigurationError) as caught:
        create_llm("fallback", **config)
    assert caught.value.field == field
    assert field in caught.value.message


def test_its_configuration_tells_the_names_of_its_llms_and_they_cannot_be_changed():
    llm = falling_back(saying("a"), saying("b"))
    assert llm.get_config()["llms"] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="another fallback"):
        llm.set_config(llms=["a"])


def test_a_registry_hands_it_its_llms_whichever_stands_first():
    lines = {
        "best": {"provider": "fallback", "llms": ["cheap", "local"]},
        "cheap": {"provider": "fallback", "llms": ["gpt", "local"]},
        "gpt": {"provider": "scripted", "script": [{"error": "PROVIDER_UNAVAILABLE"}]},
        "local": {"provider": "scripted"},
    }
    registry = LLMRegistry.from_config(lines)
    assert [llm.name for llm in registry] == list(lines)
    answer = registry["best"].complete("Hi")
    assert (answer.llm, [attempt.llm for attempt in answer.attempts]) == ("local", ["gpt", "local"])
    assert registry["local"].requests
    assert registry["best"].get_config()["llms"] == ["cheap", "local"]


@pytest.mark.parametrize(
    ("lines", "field", "words"),
    [
        ({"best": ["a", "gtp"]}, "llms.best.llms[1]", "no LLM is named 'gtp'; there are best, a, b"),
        ({"best": ["a", 5]}, "llms.best.llms[1]", "no LLM is named 5"),
        ({"best": ["a", "a"]}, "llms.best.llms[1]", "'a' stands twice"),
        ({"best": []}, "llms.best.llms", "at least one"),
        ({"best": "a"}, "llms.best.llms", "must be a list"),
        ({"best": ["best"]}, "llms.best.llms[0]", "circle: best -> best"),
        (
            {"top": ["x"], "x": ["a", "y"], "y": ["z"], "z": ["b", "x"]},
            "llms.z.llms[1]",
            "circle: x -> y -> z -> x",
        ),
    ],
)
def test_a_configuration_whose_names_are_wrong_is_refused_at_its_place(lines, field, words):
    fallbacks = {name: {"provider": "fallback", "llms": llms} for name, llms in lines.items()}
    with pytest.raises(ConfigurationError) as caught:
        LLMRegistry.from_config(fallbacks | {"a": {"provider": "scripted"}, "b": {"provider": "scripted"}})
    assert caught.value.field == field
    assert words in caught.value.message
