"""Every example, run as its first lines say, against a server with the demo model."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from abstractllm import create_llm
from abstractllm_server.settings import load_settings
from tests.providers.fake_http import Exchange, serving, streaming
from tests.providers.openai_server import call, chunk, texts
from tests.server import support

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*command: object, **environment: str) -> str:
    """The output of a program."""
    import os

    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=100, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PYTHON = {
    "ask": r"The capital of France is Paris\.\n.*12.*\(demo: \d+ \+ \d+ tokens\)",
    "stream": r"1.*10.*\n.*cold.*\(stop, first token after \d+\.\d+ s\)\n.*Rome.*\n.*Tokyo",
    "cancel": r"1.* \.\.\. enough\ntoo late: ",
    "json_schema": r"\S.* \d+\n$",
    "errors": r"INVALID_REQUEST: parameters\.temperature must be .*2.*, not 5.*\nUNKNOWN_LLM: .*nobody",
}


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_example_prints_what_it_promises(demo_address: str, name: str) -> None:
    assert re.match(PYTHON[name], run(sys.executable, EXAMPLES / f"python/{name}.py", demo_address), re.DOTALL)


SHELL = {"ask": '"text": "The capital of France is Paris."', "stream": '"textDelta"', "json_schema": '"city"'}


@pytest.mark.parametrize("name", SHELL)
def test_a_shell_example_prints_what_it_promises(demo_address: str, name: str) -> None:
    buf = Path(sys.executable).with_name("buf")
    assert SHELL[name] in run("sh", EXAMPLES / f"grpcurl/{name}.sh", demo_address, GRPCURL=str(buf)).replace('\\"', '"')


def test_the_shell_example_of_errors_shows_the_status(demo_address: str) -> None:
    command = ["sh", str(EXAMPLES / "grpcurl/errors.sh"), demo_address]
    buf = str(Path(sys.executable).with_name("buf"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={"GRPCURL": buf}, check=False)
    assert done.returncode != 0
    assert "invalid_argument" in done.stdout + done.stderr and "parameters.temperature" in done.stdout + done.stderr


async def test_the_example_with_tools_calls_the_function_and_answers() -> None:
    async def model(exchange: Exchange) -> None:
        last = exchange.request.json["messages"][-1]
        if last["role"] == "tool":
            await streaming(texts(f"They say: {last['content']}"))(exchange)
            return
        pieces = [call(0, "call_1", "weather", '{"city": "Paris"}'), chunk(finish="tool_calls"), "data: [DONE]\n\n"]
        await streaming(pieces)(exchange)

    async with serving(model) as upstream:
        llm = create_llm("openai", model="m", base_url=f"{upstream.url}/v1", api_key="sk-test")
        async with support.serving({"gpt": llm}) as running:
            example = str(EXAMPLES / "python/chat_with_tools.py")
            process = await asyncio.create_subprocess_exec(
                sys.executable, example, running.server.address, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(process.communicate(), 100)
    assert output.decode() == 'calls weather with {"city": "Paris"}\nThey say: It is sunny in Paris.\n'


def test_the_example_configuration_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from abstractllm.registry import LLMRegistry

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
    settings = load_settings(EXAMPLES / "llms.yaml", {})
    registry = LLMRegistry.from_config(settings.llms, settings.default)
    assert [llm.name for llm in registry] == ["local", "gpt", "claude", "best"]


def test_the_table_lists_every_example() -> None:
    listed = set(re.findall(r"\]\(([a-z]+/[^)]+)\)", (EXAMPLES / "README.md").read_text()))
    sources = [path for path in EXAMPLES.rglob("*") if path.suffix in {".py", ".sh", ".go", ".java", ".mjs"}]
    there = {str(path.relative_to(EXAMPLES)) for path in sources if "node_modules" not in path.parts}
    assert listed == there - {"grpcurl/call.sh"}
