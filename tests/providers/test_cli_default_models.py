"""`abstractllm generate` with each hosted provider's default model, against a scripted upstream."""

import asyncio
import json
import os
import sys

import pytest

from tests.cases.hosted_upstream import Upstream
from tests.providers.fake_http import serving

MESSAGES = {
    "openai": {"content": "Hello."},
    "anthropic": {"content": [{"type": "text", "text": "Hello."}]},
    "ollama": {"content": "Hello."},
}
# OpenAI's own address, whose requests a proxy answers: at another the model must be named.
VARIABLES = {
    "openai": {"OPENAI_BASE_URL": "http://api.openai.com/v1", "OPENAI_API_KEY": "sk-1", "HTTP_PROXY": "{url}"},
    "anthropic": {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "sk-1"},
    "ollama": {"OLLAMA_HOST": "{url}"},
}


@pytest.mark.parametrize("options", [(), ("--no-stream",), ("--json",)], ids=["streamed", "unary", "json"])
@pytest.mark.parametrize("provider", MESSAGES)
async def test_the_default_model_answers_without_any_option(provider, options):
    upstream = Upstream(provider, [{"message": MESSAGES[provider]}], None, whole=False)
    async with serving(upstream.handle) as server:
        kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
        variables = {name: value.replace("{url}", server.url) for name, value in VARIABLES[provider].items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abstractllm_cli", "generate", "--provider", provider, *options, "hi"),
            env=kept | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, errors.decode()) == (0, "")
    assert (json.loads(output)["text"] if "--json" in options else output.decode()) == (
        "Hello." if "--json" in options else "Hello.\n"
    )
    (request,) = upstream.requests
    assert not {"stop", "stop_sequences", "logit_bias", "options"} & set(request["json"])
