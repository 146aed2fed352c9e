"""The examples in the docstrings of the public names run as they stand, but for the model that answers."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import textwrap
from typing import Any, Unpack

import pytest

import abstractllm
from abstractllm import LLM, AbstractLLMInterface, LLMRegistry, errors, factory
from abstractllm.requests import make_request
from abstractllm.testing import ScriptedProvider

OUTPUT = "Paris it is"
PRINTING: dict[str, Any] = {
    "abstractllm": abstractllm,
    "create_llm": factory.create_llm,
    "LLM": LLM,
    "LLM.generate": LLM.generate,
    "LLM.complete": LLM.complete,
    "LLM.stream": LLM.stream,
    "AbstractLLMInterface": AbstractLLMInterface,
    "LLMRegistry": LLMRegistry,
    "ScriptedProvider": ScriptedProvider,
    "ChatMessage": abstractllm.ChatMessage,
}
SILENT: dict[str, Any] = {
    "GenerationRequest": abstractllm.GenerationRequest,
    "GenerationOptions": abstractllm.GenerationOptions,
    "Tool": abstractllm.Tool,
    "Capabilities": abstractllm.Capabilities,
}


class Paris(ScriptedProvider):
    """A provider that knows one answer."""

    def __init__(self, config: Any = None) -> None:
        super().__init__({"reply": OUTPUT})


def example(owner: Any) -> str:
    (block,) = re.findall(r"```python\n(.*?)\n *```", inspect.getdoc(owner) or "", re.DOTALL)
    return textwrap.dedent(block)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the examples use; whichever provider they name, a script answers."""
    monkeypatch.setattr(factory, "_PROVIDERS", dict.fromkeys(factory._PROVIDERS, f"{__name__}:Paris"))
    exported = {name: getattr(abstractllm, name) for name in abstractllm.__all__}
    others = {"closing": contextlib.closing, "asyncio": asyncio, "Unpack": Unpack}
    return exported | others | {"ScriptedProvider": ScriptedProvider, "make_request": make_request, "llm": Paris()}


@pytest.mark.parametrize("name", PRINTING)
def test_an_example_runs_and_prints_the_answer(
    name: str, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(example(PRINTING[name]), name, "exec"), scripted)
    assert capsys.readouterr().out.strip() == OUTPUT


@pytest.mark.parametrize("name", SILENT)
def test_an_example_of_a_value_runs(name: str, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example(SILENT[name]), name, "exec"), scripted)
    assert capsys.readouterr().out == ""


def test_the_example_of_an_error_is_python() -> None:
    source = inspect.getdoc(errors.error_class) or ""
    assert ast.parse(textwrap.dedent(source.partition("Example:\n")[2])).body
