"""The examples in the docstrings run as they stand, but for the server's address."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import textwrap
from types import CodeType
from typing import Any

import pytest

import abstractllm_client as client
from abstractllm_client import AsyncRemoteLLM, RemoteLLM

OWNERS: dict[str, Any] = {
    "abstractllm_client": client,
    "RemoteLLM": RemoteLLM,
    "RemoteLLM.generate": RemoteLLM.generate,
    "RemoteLLM.stream": RemoteLLM.stream,
    "AsyncRemoteLLM": AsyncRemoteLLM,
    "AsyncRemoteLLM.generate": AsyncRemoteLLM.generate,
    "AsyncRemoteLLM.stream": AsyncRemoteLLM.stream,
    "Capabilities": client.Capabilities,
    "GenerationOptions": client.GenerationOptions,
}
OUTPUT = "Paris it is"


def example(owner: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)\n *```", inspect.getdoc(OWNERS[owner]) or "", re.DOTALL)
    return textwrap.dedent(block)


def compiled(source: str) -> CodeType:
    return compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def names(**more: object) -> dict[str, Any]:
    return vars(client) | {"closing": contextlib.closing, "aclosing": contextlib.aclosing} | more


@pytest.mark.parametrize("owner", ["abstractllm_client", "RemoteLLM", "RemoteLLM.generate", "RemoteLLM.stream"])
def test_a_synchronous_example_runs(server: Any, capsys: pytest.CaptureFixture[str], owner: str) -> None:
    server.say(OUTPUT)
    with RemoteLLM(server.address) as llm:
        exec(compiled(example(owner).replace("127.0.0.1:50051", server.address)), names(llm=llm))
    assert capsys.readouterr().out.strip() == OUTPUT


@pytest.mark.parametrize("owner", ["AsyncRemoteLLM", "AsyncRemoteLLM.generate", "AsyncRemoteLLM.stream"])
async def test_an_asynchronous_example_runs(server: Any, capsys: pytest.CaptureFixture[str], owner: str) -> None:
    server.say(OUTPUT)
    async with AsyncRemoteLLM(server.address) as llm:
        await eval(compiled(example(owner).replace("127.0.0.1:50051", server.address)), names(llm=llm))
    assert capsys.readouterr().out.strip() == OUTPUT


@pytest.mark.parametrize("owner", ["Capabilities", "GenerationOptions"])
def test_an_example_of_a_type_is_python(owner: str) -> None:
    assert ast.parse(example(owner)).body
