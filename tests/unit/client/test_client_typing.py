"""Mistakes in calls are found by a type checker, and right calls pass it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_type_hints

import pytest

from abstractllm_api.v1 import config_pb2, generation_pb2
from abstractllm_client import AsyncRemoteLLM, ClientDefaults, ConfigValues, GenerationOptions, RemoteLLM
from tests.typing_check import check_planted_mistakes

CASES = Path(__file__).with_name("typing_cases.py")


@pytest.mark.timeout(300)
def test_mypy_reports_every_planted_mistake_and_nothing_else(tmp_path: Path) -> None:
    check_planted_mistakes(CASES, tmp_path)


def test_the_options_are_the_contract_s() -> None:
    request = set(generation_pb2.GenerateRequest.DESCRIPTOR.fields_by_name)
    parameters = set(generation_pb2.GenerationParameters.DESCRIPTOR.fields_by_name)
    positional = {"llm", "prompt", "chat", "system_prompt", "parameters"}
    other_names = {"max_new_tokens", "timeout"}
    assert set(get_type_hints(GenerationOptions)) == (request - positional) | parameters | other_names
    assert set(get_type_hints(ClientDefaults)) == set(get_type_hints(GenerationOptions)) | {"system_prompt"}


def test_the_configuration_s_keys_are_the_contract_s() -> None:
    settings = set(config_pb2.LlmConfig.DESCRIPTOR.fields_by_name) - {"parameters"}
    parameters = set(generation_pb2.GenerationParameters.DESCRIPTOR.fields_by_name)
    assert set(get_type_hints(ConfigValues)) == settings | parameters


@pytest.mark.parametrize("name", ["generate", "complete", "stream"])
def test_the_options_are_typed_in_every_face(name: str) -> None:
    methods = (getattr(RemoteLLM, name), getattr(RemoteLLM, f"{name}_async"), getattr(AsyncRemoteLLM, name))
    for method in methods:
        *_, options = inspect.signature(method).parameters.values()
        assert (options.name, options.annotation) == ("options", "Unpack[GenerationOptions]")
        assert get_type_hints(method)["options"].__args__ == (GenerationOptions,)
