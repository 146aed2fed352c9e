"""Mistakes in calls, configurations and providers are found by a type checker, and right ones pass it."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import pytest

from abstractllm import ConfigValues
from abstractllm.interface import ModelParameter
from tests.typing_check import check_planted_mistakes
from tools.emit.provider_configurations import provider_configurations

CASES = Path(__file__).with_name("typing_cases.py")


@pytest.mark.timeout(300)
def test_mypy_reports_every_planted_mistake_and_nothing_else(tmp_path: Path) -> None:
    check_planted_mistakes(CASES, tmp_path)


def test_the_values_of_a_configuration_have_every_provider_s_keys() -> None:
    # `parameters` stand beside the other keys, under their one name; the bits are written `quantization`.
    not_read_back = {"parameters", "max_new_tokens", "load_in_4bit", "load_in_8bit"}
    assert set(get_type_hints(ConfigValues)) == {str(key) for key in ModelParameter} - not_read_back
    for configuration in provider_configurations().values():
        assert set(configuration.known_keys()) - not_read_back <= set(get_type_hints(ConfigValues))
