"""Every generation parameter of the command's line reaches the LLM of a server."""

import asyncio

import pytest
from typer.testing import CliRunner

from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.testing import ScriptedProvider
from abstractllm_cli.main import app
from tests.server.support import HANG, serving
from tests.unit.cli.parameter_values import SAMPLED, arguments_of, value_of


@pytest.mark.parametrize("command", ["generate", "chat"])
async def test_every_parameter_reaches_the_request_on_a_server(command: str) -> None:
    arguments = [command, "--model=other", *(argument for name in SAMPLED for argument in arguments_of(name))]
    async with serving({"echo": ScriptedProvider({"models": ("other",)})}) as served:
        invoked = asyncio.to_thread(
            CliRunner().invoke, app, [*arguments, "--address", served.server.address], input="hello\n"
        )
        result = await asyncio.wait_for(invoked, HANG)
        assert result.exit_code == 0, result.output
        (request,) = served.scripted().requests
    values = request.parameters.set_fields()
    assert list(values) == list(GENERATION_PARAMETERS)
    assert values == {"model": "other"} | {name: value_of(name) for name in SAMPLED}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--logit-bias=5=101", "parameters.logit_bias[5]: must be at most 100, got 101.0"),
        ("--top-logprobs=21", "parameters.top_logprobs: must be at most 20, got 21"),
    ],
)
async def test_a_bad_value_is_refused_by_the_server_by_name(argument: str, message: str) -> None:
    async with serving() as served:
        arguments = ["generate", "hello", argument, "--address", served.server.address]
        result = await asyncio.wait_for(asyncio.to_thread(CliRunner().invoke, app, arguments), HANG)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
        assert served.scripted().requests == []
