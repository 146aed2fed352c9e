"""Downloading a model through an Ollama server, with the real SDK over real sockets."""

import asyncio
import json
from contextlib import aclosing

import pytest

from abstractllm import (
    AbstractLLMError,
    ConfigurationError,
    ModelNotFoundError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    PullProgress,
    RateLimitedError,
    ServerShuttingDownError,
    create_llm,
)
from tests.providers.fake_http import HANG, Handler, answering, resetting, serving
from tests.providers.ollama_server import asking, layer, pulling, pulls, tags

WEIGHTS, TEMPLATE = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LINES = [
    pulling("pulling manifest"),
    *layer(WEIGHTS, 1000, 400, 400, 1000),
    *layer(TEMPLATE, 20, 20),
    pulling("verifying sha256 digest"),
    pulling("writing manifest"),
    pulling("success"),
]
KEY = "ollama-canary-0123456789"


async def test_layers_are_told_as_files_and_the_whole_at_the_end() -> None:
    async with asking(pulls(LINES)) as (llm, server):
        reports = [report async for report in llm.pull()]
        assert [json.loads(request.body)["model"] for request in server.requests] == ["llama3.2"]
        await server.settled(1)
    assert reports == [
        PullProgress(WEIGHTS, 0, 1000, 0, None, False),
        PullProgress(WEIGHTS, 400, 1000, 400, None, False),
        PullProgress(WEIGHTS, 1000, 1000, 1000, None, False),
        PullProgress(TEMPLATE, 0, 20, 1000, None, False),
        PullProgress(TEMPLATE, 20, 20, 1020, None, False),
        PullProgress("", 0, None, 1020, 1020, True),
    ]


async def test_a_model_that_is_there_is_done_at_once() -> None:
    async with asking(pulls([pulling("pulling manifest"), pulling("success")])) as (llm, _):
        assert [report async for report in llm.pull()] == [PullProgress("", 0, None, 0, 0, True)]


async def test_only_a_listed_model_is_downloaded() -> None:
    async with asking(pulls([pulling("success")]), models=("qwen3:8b",)) as (llm, server):
        _ = [report async for report in llm.pull("qwen3:8b")]
        with pytest.raises(ModelNotFoundError) as caught:
            _ = [report async for report in llm.pull("other")]
        assert [json.loads(request.body)["model"] for request in server.requests] == ["qwen3:8b"]
    assert (caught.value.field, caught.value.limit) == ("model", "llama3.2, qwen3:8b")


async def test_leaving_closes_the_connection() -> None:
    async with asking(pulls(LINES[:3], then="hang")) as (llm, server):
        async with asyncio.timeout(HANG), aclosing(llm.pull()) as reports:
            assert [(await anext(reports)).file_bytes_done for _ in range(2)] == [0, 400]
            assert server.running == 1
        await server.settled()
        assert not server.faults


async def test_closing_the_llm_ends_its_download() -> None:
    async with (
        asking(pulls(LINES[:3], then="hang")) as (llm, _),
        asyncio.timeout(HANG),
        aclosing(llm.pull()) as reports,
    ):
        assert [(await anext(reports)).file_bytes_done for _ in range(2)] == [0, 400]
        await llm.close_async()
        with pytest.raises(ServerShuttingDownError):
            await anext(reports)


def says(message: str) -> Handler:
    """A server that says in the stream what goes wrong, as Ollama does."""
    return pulls([LINES[0], json.dumps({"error": message}) + "\n"])


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (says("pull model manifest: file does not exist"), ModelNotFoundError),
        (says("pull model manifest: unauthorized: access denied"), ProviderCredentialsError),
        (says("pull model manifest: 403: forbidden"), ProviderCredentialsError),
        (says("pull model manifest: 429: too many requests"), RateLimitedError),
        (
            says('pull model manifest: Get "https://registry.ollama.ai": dial tcp: no such host'),
            ProviderUnavailableError,
        ),
        (says("write /models/blobs/sha256-a-partial: no space left on device"), ProviderUnavailableError),
        (answering({"error": "invalid model name"}, 400), ModelNotFoundError),
        (answering({"error": "no"}, 401), ProviderCredentialsError),
        (answering({"error": "no"}, 404), ModelNotFoundError),
        (answering({"error": f"slow down {KEY}"}, 429), RateLimitedError),
        (answering({"error": "oh"}, 500), ProviderUnavailableError),
        (answering("", 302, {"Location": "https://elsewhere.example"}), ConfigurationError),
        (pulls(LINES[:4]), ProviderUnavailableError),
        (pulls(LINES[:4], then="close"), ProviderUnavailableError),
        (pulls(LINES[:4], then="reset"), ProviderUnavailableError),
        (pulls(["no JSON\n"]), ProviderProtocolError),
        (pulls(['["no object"]\n']), ProviderProtocolError),
        (pulls(['{"status": 5, "total": "x"}\n']), ProviderProtocolError),
        (resetting, ProviderUnavailableError),
    ],
)
async def test_a_failure_is_one_documented_error(handler: Handler, kind: type[AbstractLLMError]) -> None:
    async with asking(handler, api_key=KEY) as (llm, server), asyncio.timeout(HANG):
        with pytest.raises(AbstractLLMError) as caught:
            _ = [report async for report in llm.pull()]
        await server.settled(1)
        assert not server.faults
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.model) == ("ollama", "llama3.2")
    assert KEY not in str(error) + repr(error.__cause__)


async def test_no_server_is_an_error() -> None:
    async with create_llm("ollama", base_url="http://127.0.0.1:1") as llm:
        with pytest.raises(ProviderUnavailableError):
            _ = [report async for report in llm.pull()]


async def test_listed_models_tell_which_llms_use_them() -> None:
    async with serving(answering(tags())) as server:
        where = {"base_url": server.url}
        async with (
            create_llm("ollama", **where) as one,
            create_llm("ollama", model="qwen3:8b", models=("llama3.2:latest",), **where) as two,
            create_llm("ollama", base_url="http://127.0.0.1:1") as elsewhere,
        ):
            one.name, two.name, elsewhere.name = "one", "two", "elsewhere"
            users = {model.name: model.used_by for model in await one.cached_models()}
    assert users == {"llama3.2:latest": ("one", "two"), "qwen3:8b": ("two",)}
