"""Each package, installed from what is published in an empty folder, answers by the first lines of its own README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.toolchains import require

ROOT = Path(__file__).resolve().parents[2]
README_ADDRESS = "127.0.0.1:50051"
ANSWER = "The capital of France is Paris."

pytestmark = pytest.mark.timeout(900)  # a first build downloads what the tools need


def run(*command: object, folder: Path, **environment: str) -> str:
    """Runs a program, which must succeed; returns its output."""
    words = list(map(str, command))
    done = subprocess.run(
        words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def example(language: str, fence: str, address: str) -> str:
    """The first program of the client's README, for this address."""
    text = (ROOT / "clients" / language / "README.md").read_text("utf-8")
    blocks = re.findall(rf"^```{fence}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    program = next(block for block in blocks if README_ADDRESS in block)
    return str(program).replace(README_ADDRESS, address)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds one language's packages, as `make packages` does."""
    output = tmp_path_factory.mktemp("dist")

    def build(language: str) -> Path:
        require(language)
        run(sys.executable, ROOT / "tools/packages.py", "--output", output, language, folder=ROOT)
        return output / language

    return build


def test_python(built: Callable[[str], Path], tmp_path: Path, demo_address: str) -> None:
    (wheel,) = built("python").glob("abstractllm_client-*.whl")
    run(sys.executable, "-m", "venv", "own", folder=tmp_path)
    python = tmp_path / "own/bin/python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, folder=tmp_path)
    (tmp_path / "ask.py").write_text(example("python", "python", demo_address))
    assert ANSWER in run(python, "ask.py", folder=tmp_path, PYTHONPATH="")


def test_python_source_distributions_hold_what_the_wheels_are_made_of(built: Callable[[str], Path]) -> None:
    folder = built("python")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"{name}-0.1.0{ending}"
        for name in ("abstractllm_client", "abstractllm_grpc")
        for ending in ("-py3-none-any.whl", ".tar.gz")
    }


def test_go(built: Callable[[str], Path], tmp_path: Path, demo_address: str) -> None:
    proxies = [f"file://{built('go')}"]
    # What other builds have downloaded serves this one, in a cache of its own: no other build of our version may.
    proxies.append(f"file://{run('go', 'env', 'GOMODCACHE', folder=tmp_path).strip()}/cache/download")
    proxies.append(run("go", "env", "GOPROXY", folder=tmp_path).strip())
    environment = {
        "GOPROXY": ",".join(proxies),
        "GOMODCACHE": str(tmp_path / "modules"),
        "GONOSUMDB": "github.com/abstractllm/*",
        "GOFLAGS": "-mod=mod -modcacherw",
    }
    folder = tmp_path / "ask"
    folder.mkdir()
    run("go", "mod", "init", "example.com/ask", folder=folder, **environment)
    run("go", "get", "github.com/abstractllm/abstractllm-go@v0.1.0", folder=folder, **environment)
    (folder / "main.go").write_text(example("go", "go", demo_address))
    assert ANSWER in run("go", "run", ".", folder=folder, **environment)


POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId><artifactId>ask</artifactId><version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>io.abstractllm</groupId><artifactId>abstractllm-client</artifactId><version>0.1.0</version>
    </dependency>
  </dependencies>
  <repositories><repository><id>built</id><url>file://{repository}</url></repository></repositories>
</project>
"""


def test_java(built: Callable[[str], Path], tmp_path: Path, demo_address: str) -> None:
    artefacts = built("java")
    jars = {path.name for path in artefacts.iterdir()}
    name = "abstractllm-client-0.1.0"
    assert jars == {f"{name}.jar", f"{name}-sources.jar", f"{name}-javadoc.jar", f"{name}.pom"}
    with zipfile.ZipFile(artefacts / f"{name}.jar") as jar:
        assert "abstractllm_api/v1/generation.proto" in jar.namelist()
    place = tmp_path / "repository/io/abstractllm/abstractllm-client/0.1.0"
    place.mkdir(parents=True)
    for path in artefacts.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    program = example("java", "java", demo_address)
    (main,) = re.findall(r"class (\w+)", program)
    sources = tmp_path / "src/main/java"
    sources.mkdir(parents=True)
    (sources / f"{main}.java").write_text(program)
    (tmp_path / "pom.xml").write_text(POM.format(repository=tmp_path / "repository"))
    maven = ("mvn", "--batch-mode", "--no-transfer-progress", "--quiet")
    home = Path.home() / ".m2/repository/io/abstractllm/abstractllm-client"
    run("rm", "-rf", home, folder=tmp_path)  # nor may another build of this version stand in here
    goals = ("compile", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath")
    run(*maven, *goals, "-Dmdep.outputFile=classpath", folder=tmp_path)
    classpath = f"{tmp_path / 'target/classes'}{os.pathsep}{(tmp_path / 'classpath').read_text().strip()}"
    output = run("java", "-cp", classpath, main, folder=tmp_path)
    run("rm", "-rf", home, folder=tmp_path)
    assert ANSWER in output


def test_node(built: Callable[[str], Path], tmp_path: Path, demo_address: str) -> None:
    (tarball,) = built("node").glob("*.tgz")
    (tmp_path / "package.json").write_text('{"name": "ask", "private": true, "type": "module"}')
    run("npm", "install", "--silent", "--no-audit", "--no-fund", tarball, folder=tmp_path)
    text = (ROOT / "clients/node/README.md").read_text("utf-8")
    fence = "js" if "```js" in text else "ts"
    (tmp_path / "ask.mjs").write_text(example("node", fence, demo_address))
    assert ANSWER in run("node", "ask.mjs", folder=tmp_path)
