"""The configuration that the chart writes, read by the server itself: `abstractllm serve --check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from abstractllm_cli.main import app
from tests.deploy.helm.rehearsal import rehearsed, secret
from tests.deploy.helm.rendering import Document, documents, pod_templates, server_container
from tests.deploy.helm.tokens import TOKEN, line
from tests.server.certificates import Authority
from tools.charts import Charts, value_files

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

COPIED = ("sidecar.yaml", "shared-service.yaml")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The Secrets that the files of values name, and do not make."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    pair = authority.sign("llm")
    files = {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()}
    tokens = {"tokens": line(TOKEN), "callers.txt": line(TOKEN)}
    return [
        secret("llm-tokens", **tokens),
        secret("llm-tls", **files),
        secret("llm-abstractllm-tls", **files),
        secret("callers", **{"roots.crt": authority.pair.certificate.read_text()}),
        secret("provider-keys", OPENAI_API_KEY="sk-1", ANTHROPIC_API_KEY="sk-2"),
    ]


def check(texts: list[Document], secrets: list[Document], monkeypatch: pytest.MonkeyPatch) -> str:
    """The words of the server about the configuration of the first pod."""
    _, spec = next(pod_templates(texts))
    with rehearsed(spec, [*texts, *secrets]) as pod:
        container = server_container(spec)
        name = container["name"]
        for variable, value in pod.environment(name).items():
            monkeypatch.setenv(variable, value)
        words = [pod.mapped(name, word) for word in container["args"]]
        done = CliRunner().invoke(app, [*words, "--check"])
        return f"{done.exit_code}: {done.output}"


@pytest.mark.parametrize("file", value_files(), ids=lambda file: file.stem)
def test_the_server_takes_the_configuration(
    charts: Charts, file: Path, secrets: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = documents(charts.rendered(file))
    assert "the configuration has no fault" in check(texts, secrets, monkeypatch)


@pytest.mark.parametrize("name", COPIED)
def test_the_server_takes_that_of_a_file_to_copy(
    repository: Path, name: str, secrets: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = documents((repository / "deploy/kubernetes" / name).read_text("utf-8"))
    assert "the configuration has no fault" in check(texts, secrets, monkeypatch)


def test_a_fault_that_the_chart_cannot_see_is_told_by_the_server(
    charts: Charts, secrets: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--set", "llms.local.provider=huggingface,llms.local.modell=demo,auth.insecure=true")
    words = check(documents(charts.render("abstractllm", *options)), secrets, monkeypatch)
    assert words.startswith("2:") and "llms.yaml:8: llms.local: modell is not a known parameter" in words
