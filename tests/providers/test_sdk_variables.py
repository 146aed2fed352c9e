"""Variables that an SDK reads by itself never leave for an address that they were not meant for."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from abstractllm import create_llm
from tests.providers.anthropic_server import answer, says
from tests.providers.fake_http import serving
from tests.providers.ollama_server import done, line
from tests.providers.ollama_server import says as ollama_says
from tests.providers.openai_server import saying

_READ = re.compile(
    r"""(?:environ(?:\.get)?\s*[(\[]|getenv\()\s*["']([A-Z][A-Z0-9_]{2,})["']|\bENV_\w+[^=\n]*=\s*["']([A-Z0-9_]+)["']"""
)
# Beside those that the sources read by a name of their own.
_KNOWN = {
    "openai": {"OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID"}
    | {"OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET", "OPENAI_LOG", "OPENAI_API_TYPE", "AZURE_OPENAI_API_KEY"},
    "anthropic": {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"}
    | {"ANTHROPIC_PROFILE", "ANTHROPIC_CONFIG_DIR", "ANTHROPIC_WEBHOOK_SIGNING_KEY", "ANTHROPIC_LOG"},
    "ollama": {"OLLAMA_HOST", "OLLAMA_API_KEY", "OLLAMA_BASE_URL"},
}
PATHS = {"openai": "/v1", "anthropic": "", "ollama": ""}
HANDLERS = {
    "openai": lambda: saying("Hi"),
    "anthropic": lambda: says(answer("Hi")),
    "ollama": lambda: ollama_says([line("Hi"), done()]),
}


def variables(package: str) -> set[str]:
    """The names of all variables that a package's sources read."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    texts = [file.read_text("utf-8") for file in Path(spec.origin).parent.rglob("*.py")]
    return {first or second for text in texts for first, second in _READ.findall(text)}


def canary(name: str) -> str:
    return f"x-canary: canary-{name}" if name.endswith("CUSTOM_HEADERS") else f"canary-{name.replace('_', '-').lower()}"


def poison(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    for name in variables(provider) | _KNOWN[provider]:
        monkeypatch.setenv(name, canary(name))


@pytest.mark.parametrize("provider", PATHS)
def test_the_sources_still_read_the_variables_that_are_known(provider: str) -> None:
    assert _KNOWN[provider] - {"OLLAMA_BASE_URL"} <= variables(provider)


@pytest.mark.parametrize("key", ["sk-own-0123456789", None])
@pytest.mark.parametrize("provider", PATHS)
async def test_nothing_of_the_environment_goes_to_an_address_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, provider: str, key: str | None
) -> None:
    poison(monkeypatch, provider)
    async with serving(HANDLERS[provider]()) as server:
        config = {"model": "m", "base_url": server.url + PATHS[provider]} | ({"api_key": key} if key else {})
        async with create_llm(provider, **config) as llm:
            if provider != "anthropic" or key:
                assert (await llm.complete_async("Hi")).text == "Hi"
        requests = [(request.path, request.headers, request.body) for request in server.requests]
    assert requests or provider == "anthropic"
    assert "canary" not in str(requests)
    if key:
        assert key in str(requests)


async def test_an_address_of_the_environment_gets_what_is_meant_for_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, "openai")
    async with serving(saying("Hi")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/v1")
        async with create_llm("openai", model="m") as llm:
            await llm.complete_async("Hi")
        headers = json.dumps(server.requests[0].headers)
    leaving = set(re.findall(r"canary-[\w-]+", headers))
    assert leaving == {canary(name) for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")}
