"""The workflows of GitHub run what everybody can run, with the versions that the packages name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> Any:
    return yaml.safe_load(request.param.read_text("utf-8"))


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_is_one() -> None:
    assert WORKFLOWS


def test_it_only_calls_what_the_repository_offers(workflow: Any) -> None:
    assert [step["run"] for step in steps(workflow) if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_it_may_read_the_contents_and_nothing_else(workflow: Any) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())


def test_its_tools_have_versions_that_the_packages_take(workflow: Any) -> None:
    tools = {step["uses"].partition("@")[0]: step.get("with", {}) for step in steps(workflow) if "uses" in step}
    python = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert tuple(map(int, tools["actions/setup-python"]["python-version"].split("."))) >= (
        *map(int, python.removeprefix(">=").split(".")),
    )
    assert tools["actions/setup-go"]["go-version-file"] == "clients/go/go.mod"
    pom = (ROOT / "clients/java/pom.xml").read_text("utf-8")
    assert f">{tools['actions/setup-java']['java-version']}</maven.compiler.release>" in pom
    node = (ROOT / "clients/node/package.json").read_text("utf-8")
    assert re.search(rf'"node": ">={tools["actions/setup-node"]["node-version"]}"', node)


def test_it_keeps_nothing_between_runs(workflow: Any) -> None:
    for step in steps(workflow):
        assert "cache" not in step.get("uses", "")
        options = step.get("with", {})
        assert options.get("cache", False) is False
        if "setup-go" in step.get("uses", ""):
            assert options["cache"] is False  # its default is true
