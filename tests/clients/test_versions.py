"""The Python client at both ends of the versions that it allows, its size, and the page of what is supported."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from abstractllm.testing import ScriptedProvider
from tests.server.support import serving

ROOT = Path(__file__).resolve().parents[2]
CLIENT = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
INSTALLED_LIMIT = 250_000
"""Bytes that the client may have beside its dependencies."""

# In the fresh environment. It has nothing of this repository but the client.
SCRIPT = """
import importlib.metadata, json, sys
import grpc
from abstractllm_api.v1 import generation_pb2, generation_pb2_grpc
from abstractllm_client import Finished, InvalidRequestError, RateLimitedError, RemoteLLM

address, found = sys.argv[1], {}
with RemoteLLM(address, timeout=60) as llm:
    found["text"] = llm.generate("hello there")
    found["pieces"] = "".join(llm.generate("hello there", stream=True))
    found["finished"] = [event.finish_reason for event in llm.stream("a b") if isinstance(event, Finished)]
    try:
        llm.generate("hi", temperature=3, request_id="seen")
    except InvalidRequestError as error:
        found["error"] = [error.reason, error.field, error.limit, error.requested, error.request_id]
    script = [{"text": "half"}, {"error": "RATE_LIMITED", "message": "slow down", "retry_after": 2}]
    try:
        list(llm.stream("hi", provider_options={"script": script}))
    except RateLimitedError as error:
        found["broken"] = [error.message, error.retry_after, error.partial_text]
    found["config"] = llm.get_config()["temperature"]
    found["options"] = llm.complete("hi", provider_options={"reply": "as told"}).text
with grpc.insecure_channel(address) as channel:
    request = generation_pb2.GenerateRequest(prompt="by stub", parameters={"max_tokens": 1})
    found["stub"] = generation_pb2_grpc.GenerationServiceStub(channel).Generate(request, timeout=60).text
names = ("grpcio", "protobuf", "googleapis-common-protos")
found["versions"] = {name: importlib.metadata.version(name) for name in names}
print(json.dumps(found))
"""


def run(*command: object, **options: Any) -> str:
    """Runs a program, which must succeed; returns its output."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PIP_CONSTRAINT", "PYTHONPATH"}}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False, env=environment, **options)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from a copy, so that building leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "clients/python", folder / "client", ignore=unwanted)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, folder / "client")
    (path,) = folder.glob("*.whl")
    return path


def requirements() -> Iterator[Requirement]:
    yield from map(Requirement, CLIENT["dependencies"])


def floor(requirement: Requirement) -> str:
    """The lowest version that is allowed."""
    (version,) = (one.version for one in requirement.specifier if one.operator == ">=")
    return version


@pytest.mark.timeout(900)  # two environments are filled from the index
@pytest.mark.parametrize("end", ["lowest", "newest"])
async def test_the_client_works_with_the_lowest_and_the_newest_versions(end: str, wheel: Path, tmp_path: Path) -> None:
    pins = [f"{one.name}=={floor(one)}" for one in requirements()] if end == "lowest" else []
    await asyncio.to_thread(run, sys.executable, "-m", "venv", tmp_path / "own")
    python = tmp_path / "own/bin/python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    await asyncio.to_thread(run, *pip, wheel, *pins)
    async with serving({"echo": ScriptedProvider({"temperature": 0.5})}) as served:
        # Not a warning either, as of generated code that is older than the runtime.
        output = await asyncio.to_thread(
            run, python, "-I", "-W", "error", "-c", SCRIPT, served.server.address, cwd=tmp_path
        )
    observed = json.loads(output)
    versions = observed.pop("versions")
    assert observed == {
        "text": "hello there",
        "pieces": "hello there",
        "finished": ["stop"],
        "error": ["INVALID_REQUEST", "parameters.temperature", "at most 2", "3.0", "seen"],
        "broken": ["slow down", 2.0, "half"],
        "config": 0.5,
        "options": "as told",
        "stub": "by",
    }
    for one in requirements():
        if end == "lowest":
            assert versions[one.name] == floor(one)
        else:
            assert Version(versions[one.name]) > Version(floor(one))


def test_the_client_is_small_beside_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", tmp_path / "installed")
    run(sys.executable, "-m", "pip", "install", *options, wheel)
    files = [
        path for path in (tmp_path / "installed").rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    ]
    size = sum(path.stat().st_size for path in files)
    print(f"abstractllm-client is {size:,} bytes in {len(files)} files")
    assert 100_000 < size <= INSTALLED_LIMIT, size


def rows(heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading of the page."""
    page = (ROOT / "docs/versions.md").read_text("utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    columns = re.findall(r"^\| `?([^|`]+?)`? \| `([^|`]+)` \|", section, re.M)
    assert columns
    return dict(columns)


def python_rows(project: dict[str, Any], lines: list[str]) -> dict[str, str]:
    specifiers = {one.name: one.specifier for one in map(Requirement, lines)}
    ranges = {
        name: ",".join(str(part) for part in sorted(specifiers[name], key=str, reverse=True)) for name in specifiers
    }
    return {"Python": project["requires-python"]} | ranges


def test_the_page_has_the_python_clients_ranges() -> None:
    assert rows("The Python client") == python_rows(CLIENT, CLIENT["dependencies"])


def test_the_page_has_the_servers_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for name in ("server", "huggingface", "gpu", "openai", "anthropic", "ollama") for line in extras[name]),
    ]
    ours = ("abstractllm-",)
    wanted = python_rows(project, [line for line in lines if not line.startswith(ours)])
    assert rows("The library and the server") == wanted


def test_the_page_has_the_versions_of_go_mod() -> None:
    text = (ROOT / "clients/go/go.mod").read_text("utf-8")
    modules = re.findall(r"^\s+(\S+) (v\S+)$", text, re.M)
    (version,) = re.findall(r"^go (\S+)$", text, re.M)
    assert rows("The Go client") == {"Go": version} | dict(modules)


def test_the_page_has_the_versions_of_the_pom() -> None:
    space = "{http://maven.apache.org/POM/4.0.0}"
    project = ElementTree.parse(ROOT / "clients/java/pom.xml").getroot()
    properties = {one.tag.removeprefix(space): one.text or "" for one in project.find(f"{space}properties") or ()}
    wanted = {"Java": properties["maven.compiler.release"], "io.grpc:grpc-bom": properties["grpc.version"]}
    for one in project.findall(f"{space}dependencies/{space}dependency"):
        group, name, version, scope = (
            one.findtext(f"{space}{tag}", "") for tag in ("groupId", "artifactId", "version", "scope")
        )
        if version and scope != "test":
            wanted[f"{group}:{name}"] = re.sub(r"\$\{([^}]+)\}", lambda match: properties[match[1]], version)
    assert rows("The Java client") == wanted


def test_the_page_has_the_versions_of_package_json() -> None:
    package = json.loads((ROOT / "clients/node/package.json").read_text("utf-8"))
    assert rows("The Node client") == {"Node": package["engines"]["node"]} | package["dependencies"]
