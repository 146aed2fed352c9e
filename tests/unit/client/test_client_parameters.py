"""A generation parameter of the contract needs no line by hand in the client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import InvalidRequestError, LlmState, Quantization, ReasoningEffort, _fields
from tools.emit import python_client
from tools.parameter_table import Bounds, Parameter

ROOT = Path(__file__).resolve().parents[3]


def planted(name: str, kind: str, **facts: Any) -> Parameter:
    empty: dict[str, Any] = dict(enum="", doc=f"Sets {name}.", unit="", range=None, length=None, items=None, keys=None)
    return Parameter(name, 99, kind, **empty | facts)


def emitted(*parameters: Parameter) -> str:
    return python_client.emit(parameters)[python_client.FILE]


def test_a_planted_parameter_is_typed_and_documented() -> None:
    text = emitted(
        planted("warmth", "double", range=Bounds(0, 2.5, excludes_minimum=True)),
        planted("patience", "int32", range=Bounds(1, 90_000), unit="tokens"),
        planted("bans", "strings", items=Bounds(0, 4), length=Bounds(1, 9)),
        planted("weights", "number_by_token", keys=Bounds(0, 7), range=Bounds(-1, 1)),
        planted("effort", "enum", enum="ReasoningEffort"),
    )
    assert "    warmth: float | None\n" in text and "    warmth: float\n" in text
    assert '"""Sets warmth. Above 0 and at most 2.5."""' in text
    assert '"""Sets patience. From 1 to 90,000 tokens."""' in text
    assert "At most 4 texts. Each text has from 1 to 9 characters. A single string counts as a list of one." in text
    assert "    weights: Mapping[int, float] | None\n" in text and "    weights: dict[int, float]\n" in text
    assert "Keys are from 0 to 7. Values are from -1 to 1." in text
    assert "    effort: ReasoningEffort | str | None\n" in text and "    effort: ReasoningEffort | int\n" in text


@pytest.mark.parametrize("kinds", [("double",), ("strings", "int64"), ("number_by_token", "enum"), ("string", "int32")])
@pytest.mark.parametrize("length", [1, 30])
def test_what_is_emitted_is_formatted(kinds: tuple[str, ...], length: int) -> None:
    doc = "Says something of this parameter. " * length
    enums = {"enum": "ReasoningEffort"}
    text = emitted(*(planted(f"new_{kind}", kind, doc=doc.strip(), enum=enums.get(kind, "")) for kind in kinds))
    for command in (["format", "--check", "--quiet"], ["check", "--quiet"]):
        run = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(python_client.FILE), "-"]
        subprocess.run(run, cwd=ROOT, input=text.encode(), check=True)


def test_a_parameter_of_a_kind_without_a_type_is_refused() -> None:
    with pytest.raises(KeyError):
        emitted(planted("flags", "bytes"))


@pytest.mark.parametrize(
    ("message", "name", "value", "decoded"),
    [
        (pb.GenerationParameters(), "temperature", 1, 1.0),
        (pb.GenerationParameters(), "seed", -(2**63), -(2**63)),
        (pb.GenerationParameters(), "model", "", ""),
        (pb.GenerationParameters(), "stop", "a", ["a"]),
        (pb.GenerationParameters(), "stop", ("a", "b"), ["a", "b"]),
        (pb.GenerationParameters(), "logit_bias", {7: -1}, {7: -1.0}),
        (pb.GenerationParameters(), "reasoning_effort", "high", ReasoningEffort.HIGH),
        (pb.GenerationParameters(), "reasoning_effort", 77, 77),
        (config_pb2.LlmConfig(), "quantization", Quantization.INT4, Quantization.INT4),
        (config_pb2.LlmConfig(), "keep_alive", "1.5m", 90.0),
        (config_pb2.LlmConfig(), "provider_options", {"n": 1, "deep": [1.5, None]}, {"n": 1, "deep": [1.5, None]}),
        (models_pb2.Llm(), "state", "ready", LlmState.READY),
    ],
)
def test_a_field_takes_and_gives_what_its_type_says(message: Any, name: str, value: object, decoded: object) -> None:
    _fields.encode(message, name, value, name)
    assert _fields.decode(message, name) == decoded
    assert type(_fields.decode(message, name)) is type(decoded)


@pytest.mark.parametrize("name", ["temperature", "seed", "model", "stop", "logit_bias", "reasoning_effort"])
def test_a_field_refuses_a_value_of_another_type_by_its_path(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _fields.encode(pb.GenerationParameters(), name, object(), f"parameters.{name}")
    assert caught.value.field == f"parameters.{name}"
