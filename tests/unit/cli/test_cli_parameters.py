"""Every generation parameter is an option of the commands that generate, and its value reaches the LLM."""

import re

import pytest
from typer.testing import CliRunner

from abstractllm import factory
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.testing import ScriptedProvider
from abstractllm_cli.main import app
from tests.unit.cli.parameter_values import SAMPLED, SCHEMA, arguments_of, schema_of, value_of
from tests.unit.cli.support import GENERATE, run

COMMANDS = {"generate": ["generate", "hello"], "chat": ["chat"]}


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> ScriptedProvider:
    """The LLM that the commands talk to."""
    llm = ScriptedProvider()
    monkeypatch.setattr(factory, "provider_class", lambda name: lambda settings: llm)
    return llm


def option_texts(command: str) -> dict[str, str]:
    """The explanation of each option in a command's help, its lines joined."""
    shown = CliRunner().invoke(app, [command, "--help"]).stdout.split("Options:")[1]
    entries = re.split(r"\n(?=  -)", shown)
    return {entry.split()[0]: " ".join(entry.split()) for entry in entries if entry.strip()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_is_explained_with_its_range(command: str) -> None:
    texts = option_texts(command)
    assert [name for name in GENERATION_PARAMETERS if f"--{name.replace('_', '-')}" not in texts] == []
    for name in SAMPLED:
        text, schema = texts[f"--{name.replace('_', '-')}"], schema_of(name)
        assert " ".join(SCHEMA["properties"][name]["description"].split()) in text
        bounds = [schema.get(key) for key in ("maximum", "maxItems", "maxProperties")]
        bounds += schema.get("enum", ())
        for bound in (bound for bound in bounds if bound is not None and bound != 2**63 - 1):
            assert (f"{bound:,}" if isinstance(bound, int | float) else bound) in text.rpartition("[")[2], name


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_reaches_the_request(command: str, name: str, llm: ScriptedProvider) -> None:
    result = CliRunner().invoke(app, [*COMMANDS[command], *arguments_of(name)], input="hello\n")
    assert result.exit_code == 0, result.output
    (request,) = llm.requests
    assert request.parameters.set_fields() == {"model": "script", name: value_of(name)}


def test_without_options_no_parameter_is_set(llm: ScriptedProvider) -> None:
    assert CliRunner().invoke(app, ["generate", "hello"]).exit_code == 0
    (request,) = llm.requests
    assert request.parameters.set_fields() == {"model": "script"}


@pytest.mark.parametrize(
    ("argument", "code", "message"),
    [
        ("--logit-bias=5", 2, "--logit-bias: must be a token's id, =, and a number, got '5'"),
        ("--logit-bias=x=1", 2, "--logit-bias: must be a token's id, =, and a number, got 'x=1'"),
        ("--logit-bias=5=much", 2, "--logit-bias: must be a token's id, =, and a number, got '5=much'"),
        ("--logit-bias=5=101", 1, "parameters.logit_bias[5]: must be at most 100, got 101.0"),
        ("--logit-bias=5=nan", 1, "parameters.logit_bias[5]: must be "),
        ("--logit-bias=-1=1", 1, "parameters.logit_bias[-1]: must be at least 0, got -1"),
        ("--top-logprobs=some", 2, "--top-logprobs"),
        ("--top-logprobs=21", 1, "parameters.top_logprobs: must be at most 20, got 21"),
        ("--top-logprobs=-1", 1, "parameters.top_logprobs: must be at least 0, got -1"),
    ],
)
def test_a_bad_value_is_refused_by_name(argument: str, code: int, message: str) -> None:
    done = run(*GENERATE, "hi", argument)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_token_that_is_given_twice_is_refused() -> None:
    done = run(*GENERATE, "hi", "--logit-bias", "5=1", "--logit-bias", "5=2")
    assert done.returncode == 2
    assert "--logit-bias: token 5 is given twice" in done.stderr


def test_all_parameters_can_be_set_together(llm: ScriptedProvider) -> None:
    result = CliRunner().invoke(
        app, ["generate", "hello", *(argument for name in SAMPLED for argument in arguments_of(name))]
    )
    assert result.exit_code == 0, result.output
    (request,) = llm.requests
    assert request.parameters.set_fields() == {"model": "script"} | {name: value_of(name) for name in SAMPLED}
