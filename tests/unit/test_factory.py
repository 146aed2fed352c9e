"""From names to LLMs: built-in providers, those of other packages, the named LLMs of a configuration."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from abstractllm import (
    ConfigurationError,
    LLMRegistry,
    LlmState,
    UnknownLLMError,
    UnknownProviderError,
    available_providers,
    create_llm,
    factory,
)
from abstractllm.testing import ScriptedProvider


@pytest.fixture
def entry(monkeypatch):
    """Registers an entry point `extra` with the given target, as an installed package would."""

    def register(target):
        point = EntryPoint("extra", target, factory.ENTRY_POINT_GROUP)

        def fake(**selection):
            return EntryPoints([point]).select(**selection)

        monkeypatch.setattr(factory, "entry_points", fake)

    return register


def test_an_unknown_provider_is_refused_with_the_known_ones():
    with pytest.raises(UnknownProviderError, match="huggingface") as caught:
        create_llm("gpt")
    assert isinstance(caught.value, ValueError)
    assert caught.value.requested == "gpt"


def test_a_package_can_register_a_provider(entry):
    entry("abstractllm.testing:ScriptedProvider")
    assert "extra" in available_providers()
    assert create_llm("extra", reply="hi").generate("x") == "hi"


def test_an_entry_point_that_is_no_provider_says_so(entry):
    entry("abstractllm.testing:ScriptedConfig")
    with pytest.raises(ConfigurationError, match="AbstractLLMInterface"):
        create_llm("extra")


def test_a_fault_inside_a_providers_module_is_not_hidden(entry):
    entry("abstractllm.no_such_module:Provider")
    with pytest.raises(ModuleNotFoundError):
        create_llm("extra")


async def test_a_registry_names_its_llms_and_knows_the_default():
    lines = {"a": {"provider": "scripted"}, "b": {"provider": "scripted", "model": "x", "load_delay": 1}}
    registry = LLMRegistry.from_config(lines, "b")
    assert registry[""] is registry["b"]
    assert [(info.name, info.model, info.is_default, info.state) for info in registry.list()] == [
        ("a", "script", False, LlmState.READY),
        ("b", "x", True, LlmState.UNLOADED),
    ]
    assert (await registry["a"].complete_async("Hi")).llm == "a"
    await registry.close()


def test_an_unknown_llm_is_refused_with_the_known_ones():
    with pytest.raises(UnknownLLMError, match="there are a, b") as caught:
        LLMRegistry({"a": ScriptedProvider(), "b": ScriptedProvider()})["c"]
    assert caught.value.field == "llm"


@pytest.mark.parametrize(
    ("lines", "default", "field"),
    [
        ({}, None, "llms"),
        ({"a": {"provider": "scripted"}}, "b", "default"),
        ({"a": {}}, None, "llms.a.provider"),
        ({"a": "scripted"}, None, "llms.a"),
        ({"a": {"provider": "gpt"}}, None, "llms.a.provider"),
        ({"a": {"provider": "scripted", "temperature": 3}}, None, "llms.a.parameters.temperature"),
        ({"a": {"provider": "scripted", "colour": 3}}, None, "llms.a.colour"),
    ],
)
def test_a_bad_configuration_is_named_by_its_path(lines, default, field):
    with pytest.raises(ConfigurationError) as caught:
        LLMRegistry.from_config(lines, default)
    assert caught.value.field == field
