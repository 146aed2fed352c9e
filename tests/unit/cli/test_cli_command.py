"""The command as a whole: its help, its wrong usage, its start."""

import json
import subprocess
import sys

import pytest

from tests.unit.cli.support import run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "hi", "--option", "beam"), "--option: must be KEY=VALUE, got 'beam'"),
        (("generate", "hi", "--option", "a=1", "--option", "a=2"), "--option: a is given twice"),
        (("generate", "hi", "--max-tokens", "many"), "--max-tokens"),
        (("generate", "hi", "--llm", "local"), "--llm: only --address and --config have LLMs by name"),
        (("generate", "hi", "--address", "127.0.0.1:1", "--provider", "openai"), "--provider: a server has its own"),
        (("chat", "--address", "127.0.0.1:1", "--config", __file__), "--config: a server has its own"),
        (("chat", "--config", __file__, "--provider", "openai"), "--provider: the file names the providers"),
        (("llms", "--config", "no such file"), "--config"),
        (("models", "clear", "--yes"), "MODEL: name one model, or use --all"),
        (("models", "clear", "org/one", "--all", "--yes"), "MODEL: name one model, or use --all"),
        (("models", "clear", "--all"), "--yes: there is no terminal to ask at"),
        (("models", "list", "--llm", "local"), "--llm: only a server has LLMs by name"),
        (("models", "list", "--address", "127.0.0.1:1", "--cache-dir", "x"), "--cache-dir: a server has its own cache"),
        (("config", "set", "temperature"), "KEY=VALUE: must be KEY=VALUE, got 'temperature'"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_argument(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_without_a_configuration_the_providers_are_listed() -> None:
    assert {"huggingface", "scripted"} <= set(run("llms").stdout.split())
    names = [provider["name"] for provider in json.loads(run("llms", "--json").stdout)["providers"]]
    assert names == run("llms").stdout.split()


def test_the_version_is_the_packages() -> None:
    import abstractllm

    assert run("--version").stdout == f"abstractllm {abstractllm.__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["serve", "generate", "chat", "llms", "models list", "models pull", "models clear", "config get", "config set"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    options = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    assert options
    explanations = done.stdout.split("Options:")[1]
    for option in options:
        after = explanations.split(option, 1)[1].lstrip("\n").splitlines()
        assert len(option.split("  ")) > 2 or after[0].startswith(" " * 10), f"{option} is not explained"


def test_the_command_starts_light() -> None:
    code = "import sys, abstractllm_cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).split())
    heavy = {"abstractllm", "abstractllm_api", "abstractllm_client", "abstractllm_server", "grpc", "google", "rich"}
    assert not loaded & (heavy | {"pydantic", "yaml", "torch", "transformers", "huggingface_hub", "asyncio"})
