"""The providers of `docs/writing-a-provider.md` are typed, registered and asked as the page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractllm import (
    AbstractLLMError,
    ConfigurationError,
    FinishReason,
    IncompleteStreamError,
    LLMRegistry,
    ProviderCredentialsError,
    RateLimitedError,
    TextDelta,
    UnsupportedParameterError,
    available_providers,
    create_llm,
)
from tests.providers.fake_http import serving, streaming

SHOUTING, LINES = "shouting", "lines"
NDJSON = {"Content-Type": "application/x-ndjson"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Path]:
    """The page's modules in a folder, installed as a package that registers its providers."""
    folder = tmp_path_factory.mktemp("providers")
    page = (repository / "docs/writing-a-provider.md").read_text("utf-8")
    for source in blocks(page, "python"):
        name = re.match(r'"""(\w+\.py): ', source)
        assert name is not None
        (folder / name[1]).write_text(source, "utf-8")
    (toml,) = blocks(page, "toml")
    (group,) = tomllib.loads(toml)["project"]["entry-points"].items()
    entries = group[1] | {LINES: "lines:LinesProvider"}
    metadata = folder / "providers_of_the_page-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: providers-of-the-page\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {target}" for name, target in entries.items())
    (metadata / "entry_points.txt").write_text(f"[{group[0]}]\n{lines}\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in (SHOUTING, LINES):
        sys.modules.pop(name, None)


@pytest.mark.timeout(300)
def test_the_page_s_providers_are_typed_and_short(modules: Path, repository: Path, tmp_path: Path) -> None:
    sources = sorted(modules.glob("*.py"))
    assert [source.stem for source in sources] == [LINES, SHOUTING]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "pyproject.toml", "--cache-dir", tmp_path]
    run = subprocess.run([*command, *sources], cwd=repository, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    code = [line for line in (modules / "shouting.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 30


@pytest.mark.usefixtures("modules")
class TestShouting:
    def test_it_is_a_provider_as_every_other(self) -> None:
        assert SHOUTING in available_providers()
        with create_llm(SHOUTING, ending="?") as llm:
            assert llm.generate("how are you") == "HOW ARE YOU?"
            assert list(llm.generate("how are you", stream=True)) == ["HOW", " ARE", " YOU", "?"]
            completion = llm.complete("how are you", max_tokens=2)
            assert (completion.text, completion.finish_reason) == ("HOW ARE", FinishReason.MAX_TOKENS)
            assert (completion.usage.output_tokens, completion.provider, completion.model) == (2, SHOUTING, "megaphone")
            assert llm.set_config(ending=".")["max_retries"] == 0
            assert llm.generate("Hi") == "HI."
            with pytest.raises(UnsupportedParameterError, match="temperature"):
                llm.generate("Hi", temperature=1)
        with pytest.raises(ConfigurationError, match="endng"):
            create_llm(SHOUTING, endng="!")

    async def test_it_stands_in_a_registry_beside_others(self) -> None:
        from shouting import ShoutingProvider

        registry = LLMRegistry({"loud": ShoutingProvider()})
        assert await registry["loud"].generate_async("Hi") == "HI!"
        registry = LLMRegistry.from_config({"loud": {"provider": SHOUTING, "ending": "!!"}})
        assert await registry["loud"].generate_async("Hi") == "HI!!"
        await registry.close()


def lines_of(*pieces: str, is_whole: bool = True) -> list[bytes]:
    values = [{"text": piece} for piece in pieces] + ([{"done": True}] if is_whole else [])
    return [json.dumps(value).encode() + b"\n" for value in values]


@pytest.mark.usefixtures("modules")
class TestLines:
    async def test_it_asks_its_server_and_streams_the_answer(self) -> None:
        handler = streaming(lines_of("Hel", "lo"), headers=NDJSON)
        async with serving(handler) as server, create_llm(LINES, base_url=server.url, api_key="k1") as llm:
            assert await llm.generate_async("Hi", "Be brief.", temperature=0) == "Hello"
            pieces = [event.text async for event in llm.stream_async("Hi") if isinstance(event, TextDelta)]
            assert pieces == ["Hel", "lo"]
            sent = server.requests[0]
        assert sent.headers["authorization"] == "Bearer k1"
        assert sent.json == {
            "messages": [{"role": "system", "text": "Be brief."}, {"role": "user", "text": "Hi"}],
            "temperature": 0,
        }

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (429, [b"slow down"], RateLimitedError),
            (401, [b"wrong key"], ProviderCredentialsError),
            (200, lines_of("Hel", is_whole=False), IncompleteStreamError),
        ],
    )
    async def test_its_errors_are_the_library_s(
        self, status: int, body: list[bytes], error: type[AbstractLLMError]
    ) -> None:
        async with (
            serving(streaming(body, headers=NDJSON, status=status)) as server,
            create_llm(LINES, base_url=server.url, max_retries=0) as llm,
        ):
            with pytest.raises(error) as caught:
                await llm.generate_async("Hi")
        assert (caught.value.provider, caught.value.model) == (LINES, "any")
        assert caught.value.partial_text == ("Hel" if error is IncompleteStreamError else "")
