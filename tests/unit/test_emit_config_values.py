"""The generated types and names of a configuration's keys."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import EntryPoint, EntryPoints
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, SecretStr

from abstractllm import factory
from abstractllm.config import Bytes, LLMConfig, Seconds
from abstractllm.enums import Quantization
from abstractllm.testing import ScriptedProvider
from tools.emit import config_values, model_parameter
from tools.emit.provider_configurations import provider_configurations


class Color(StrEnum):
    RED = "red"


class Painted(LLMConfig):
    secret: Annotated[SecretStr, AfterValidator(str)] | None = None
    texts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(tuple)] | None = None
    map_or_text: str | dict[str, int | str] | None = None
    anything: dict[str, Any] = Field(default_factory=dict)
    choice: Literal["one", "two"] | None = None
    quantization: Quantization | None = None
    color: Color = Color.RED
    wait: Seconds | None = None
    size: Annotated[Bytes, Field(ge=1024)] = 4096
    flag: bool = False


class Strange(LLMConfig):
    shape: complex = 1j


class Clashing(LLMConfig):
    flag: int = 0


def emitted(monkeypatch: pytest.MonkeyPatch, **configurations: type[LLMConfig]) -> str:
    monkeypatch.setattr(config_values, "provider_configurations", lambda: configurations)
    return config_values.emit()[config_values.FILE]


@pytest.mark.parametrize(
    "line",
    [
        "    secret: str\n",
        "    texts: list[str]\n",
        "    map_or_text: str | dict[str, int | str]\n",
        "    anything: dict[str, Any]\n",
        '    choice: Literal["one", "two"]\n',
        "    quantization: Quantization\n",
        "    color: str\n",
        '    wait: float\n    """Seconds."""\n',
        '    size: int\n    """Bytes."""\n',
        "    flag: bool\n",
        "from typing import Any, Literal\n",
        "from abstractllm.enums import Quantization\n",
    ],
)
def test_type_is_that_of_the_value_that_a_configuration_gives_back(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    assert line in emitted(monkeypatch, painted=Painted)


def test_keys_of_every_llm_come_first_and_the_others_name_their_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = emitted(monkeypatch, painted=Painted, plain=LLMConfig, varnished=Painted)
    assert text.count("secret: ") == 1
    assert text.index("model: str") < text.index("# Of painted, varnished.") < text.index("secret: ")
    assert "parameters:" not in text


def test_type_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="complex"):
        emitted(monkeypatch, strange=Strange)


def test_key_of_two_types_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="flag: int at clashing, bool at another provider"):
        emitted(monkeypatch, painted=Painted, clashing=Clashing)


@pytest.fixture
def another_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is installed on this machine and brings a provider of its own."""
    entry = EntryPoint("painted", f"{__name__}:PaintedProvider", factory.ENTRY_POINT_GROUP)
    with monkeypatch.context() as patch:
        patch.setattr(factory, "entry_points", lambda **selection: EntryPoints([entry]).select(**selection))
        assert "painted" in factory.available_providers()
        yield


class PaintedProvider(ScriptedProvider):
    provider = "painted"
    config_type = Painted


@pytest.mark.usefixtures("another_package")
def test_providers_of_other_packages_change_nothing() -> None:
    assert sorted(provider_configurations()) == ["anthropic", "fallback", "huggingface", "ollama", "openai", "ray"]
    assert "COLOR" not in "".join(model_parameter.emit([]).values())
    assert "color" not in "".join(config_values.emit().values())
