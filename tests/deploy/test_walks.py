"""The walks of the documentation, as far as a test can follow them: the Go program, and the commands of make."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT
from tests.waiting import wait_until

GO_PAGE = (ROOT / "docs/walks/go-client.md").read_text("utf-8")
HOSTED_PAGE = (ROOT / "docs/walks/hosted-model.md").read_text("utf-8")
pytestmark = pytest.mark.timeout(400)
needs_go = pytest.mark.skipif(shutil.which("go") is None and not os.environ.get("CI"), reason="Go is not installed")


def blocks(page: str, language: str, heading: str = "") -> list[str]:
    """The blocks of code of a page, or of one of its sections."""
    text = page.partition(f"\n## {heading}")[2].partition("\n## ")[0] if heading else page
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listens(port: int) -> bool:
    """Tells whether somebody listens on a port."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the walk needs of a clone beside the program."""
    folder = tmp_path_factory.mktemp("walk")
    listed = subprocess.run(
        ["git", "ls-files", "clients/go", "tools/packages.py", "clients/python/pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in listed:
        (folder / "abstractllm" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "abstractllm" / name)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=folder / "abstractllm", check=True)
    return folder


def build(folder: Path, name: str, heading: str, port: int) -> Path:
    """Follows one of the two ways, and returns the program."""
    [source] = blocks(GO_PAGE, "go")
    [commands] = blocks(GO_PAGE, "sh", heading)
    shop = folder / name
    shop.mkdir()
    (shop / "main.go").write_text(source.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), "utf-8")
    (shop / "go.mod").write_text("module example.org/shop\n\ngo 1.26.0\n", "utf-8")
    commands = commands.replace("python3 ", f"{sys.executable} ").replace("go build .", "go build -o shop .")
    done = subprocess.run(
        ["/bin/sh", "-euc", commands], cwd=shop, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return shop / "shop"


def fetch(address: str) -> tuple[int, str]:
    """GET: the status and the text."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@needs_go
@pytest.mark.parametrize(("name", "heading"), [("replace", "Either"), ("proxy", "Or")])
def test_go_program_is_built_and_asks(name: str, heading: str, folder: Path, demo_address: str) -> None:
    port = free_port()
    program = build(folder, name, heading, port)
    assert ("replace" in (program.parent / "go.mod").read_text("utf-8")) == (name == "replace")
    with subprocess.Popen([str(program)], env=os.environ | {"LLM_ADDRESS": demo_address}) as running:
        try:
            wait_until(lambda: listens(port))
            assert fetch(f"http://127.0.0.1:{port}/price/tea") == (200, "tea: 7 EUR\n")
            question = "What+is+the+capital+of+France%3F"
            assert fetch(f"http://127.0.0.1:{port}/ask?q={question}") == (200, "The capital of France is Paris.")
        finally:
            running.kill()


def test_hosted_walk_installs_no_pytorch() -> None:
    script = (ROOT / "tools/setup_environment.sh").read_text("utf-8")
    extras = re.findall(r'^hosted\) extras="([a-z,]+)"', script, re.MULTILINE)[0].split(",")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert "huggingface" not in extras
    assert not [line for extra in extras for line in declared[extra] if "torch" in line or "huggingface" in line]
    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", "serve", "PROVIDER=anthropic", "MODEL=m", "PORT=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "sh tools/setup_environment.sh hosted" in planned
    assert "setup_environment.sh run" not in planned
    assert '.venv/bin/abstractllm serve --provider anthropic --model "m" --port 1' in planned


def test_configuration_of_the_hosted_walk_is_as_it_says(tmp_path: Path) -> None:
    [text] = blocks(HOSTED_PAGE, "yaml")
    (tmp_path / "llms.yaml").write_text(text, "utf-8")
    command = [sys.executable, "-m", "abstractllm_cli", "serve", "--check", "--config", "llms.yaml"]
    kept = {name: value for name, value in os.environ.items() if name not in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")}
    without, faultless = [
        subprocess.run(command, cwd=tmp_path, env=kept | keys, capture_output=True, text=True, timeout=60, check=False)
        for keys in ({}, {"ANTHROPIC_API_KEY": "x"})
    ]
    assert without.returncode == 2
    assert without.stderr in HOSTED_PAGE
    assert faultless.returncode == 0
    assert faultless.stderr in HOSTED_PAGE
