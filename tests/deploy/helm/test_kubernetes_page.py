"""The page about Kubernetes, followed: its steps that change a chart, its values, and Helm's answers as shown."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import custom_resources
from tests.deploy.helm.rendering import documents, only
from tests.deploy.helm.schemas import check
from tests.deploy.helm.tokens import TOKEN, line
from tools.charts import Charts, HelmError

pytestmark = pytest.mark.timeout(1200)  # the first test may have to build Helm

CHART = "abstractllm/deploy/helm/abstractllm"


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).resolve().parents[3] / "docs/kubernetes.md").read_text("utf-8")


@pytest.fixture(scope="module")
def consoles(page: str) -> dict[str, str]:
    """The answer to each command, as the page shows it."""
    answers: dict[str, str] = {}
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            command, _, answer = part.partition("\n")
            answers[re.sub(" +", " ", command)] = answer.strip()
    return answers


@pytest.fixture(scope="module")
def folder(charts: Charts, page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clone, and a chart that Helm made and the page's steps changed."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "abstractllm").symlink_to(Path(__file__).resolve().parents[3])
    charts.run("create", "shop", folder=folder)
    dependencies, values = re.findall(r"\*\*3\..*?```yaml\n(.*?)```\n\n```yaml\n(.*?)```", page, re.DOTALL)[0]
    for name, text in (("Chart.yaml", dependencies), ("values.yaml", values)):
        with (folder / "shop" / name).open("a") as file:
            file.write(f"\n{text}")
    (patch,) = re.findall(r"```diff\n(.*?)```", page, re.DOTALL)
    subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=folder, timeout=60, check=True)
    charts.run("dependency", "update", "shop", folder=folder)
    return folder


def helm(charts: Charts, folder: Path, command: str) -> str:
    """The text that Helm prints, be it an answer or an error; pipes are the test's business."""
    words = command.partition("|")[0].split()
    assert words.pop(0) == "helm"
    try:
        return charts.run(*words, folder=folder)
    except HelmError as error:
        return str(error)


def test_the_chart_of_the_walk_has_a_sidecar(charts: Charts, folder: Path) -> None:
    charts.run("lint", "--strict", "shop", folder=folder)
    texts = documents(charts.run("template", "shop", "shop", folder=folder))
    for text in texts:
        check(text, "1.37")
    pod = only(texts, "Deployment")["spec"]["template"]["spec"]
    (sidecar,), (program,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always" and program["env"][0]["name"] == "ABSTRACTLLM_ADDRESS"
    assert pod["securityContext"]["supplementalGroups"] == [sidecar["securityContext"]["runAsGroup"]]


def test_helm_answers_as_the_page_shows(charts: Charts, folder: Path, consoles: dict[str, str]) -> None:
    (folder / "tokens").write_text(line(TOKEN))
    shown = [command for command in consoles if command.startswith("helm template")]
    assert len(shown) >= 7
    for command in shown:
        if "sed " in command:
            continue  # the server reads that: below
        answer = helm(charts, folder, command)
        lines = [re.sub(r"^\d+:", "", text).strip() for text in consoles[command].splitlines()]
        assert all(text in answer for text in lines), command


def test_the_configuration_of_the_walk_is_cut_out_as_shown(
    folder: Path, charts: Charts, consoles: dict[str, str]
) -> None:
    (command,) = (command for command in consoles if "sed " in command)
    text = helm(charts, folder, command)
    cut = re.search(r"\| (sed .*) >", command)
    assert cut is not None
    done = subprocess.run(
        ["sh", "-c", cut[1]], input=text, text=True, capture_output=True, cwd=folder, timeout=60, check=True
    )
    configuration = yaml.safe_load(done.stdout)
    assert configuration["listen"] == f"unix://{folder}/run/abstractllm.sock"
    assert configuration["llms"] == {"local": {"provider": "huggingface", "model": "demo"}}


def test_the_values_that_the_page_shows_are_taken(charts: Charts, page: str, tmp_path: Path) -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    shown = [block for block in blocks if "monitoring" in block or "gpu" in block]
    assert len(shown) == 2
    for values in shown:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({**values, "auth": {"insecure": True}}))
        texts = documents(charts.render("abstractllm", "--values", str(file)))
        assert only(texts, "Deployment")


def test_the_pod_monitor_of_the_page_is_valid_and_finds_the_port(page: str, charts: Charts, folder: Path) -> None:
    blocks: list[dict[str, Any]] = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    ]
    (monitor,) = (block for block in blocks if block.get("kind") == "PodMonitor")
    custom_resources.check(monitor)
    template = only(documents(charts.run("template", "shop", "shop", folder=folder)), "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    names = {port["name"] for port in template["spec"]["initContainers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= names
