"""The Java client: its own tests, its README's programs, its examples, and that code and documentation are in order."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from abstractllm import create_llm
from tests.clients.toolchains import require
from tests.interop.recorder import Recorder
from tests.providers.fake_http import Exchange, serving, streaming
from tests.providers.openai_server import call, chunk, texts
from tests.server import support
from tools.emit.java import KINDS, emit
from tools.parameter_table import Bounds, Parameter

require("java")

ROOT = Path(__file__).resolve().parents[2]
CLIENT, EXAMPLES = ROOT / "clients/java", ROOT / "examples/java"
NAME = "abstractllm-client-0.1.0"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

pytestmark = pytest.mark.timeout(900)  # the first build downloads what Maven needs


def run(*command: object, folder: Path = ROOT) -> str:
    """Returns the output of a program that must succeed."""
    words = list(map(str, command))
    finished = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
    assert finished.returncode == 0, f"{' '.join(words)}\n{finished.stdout[-8000:]}{finished.stderr[-3000:]}"
    return finished.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the client beside the contract, built apart from whoever else builds it."""
    copy = tmp_path_factory.mktemp("java")
    shutil.copytree(CLIENT, copy / "clients/java", ignore=shutil.ignore_patterns("target"))
    shutil.copytree(ROOT / "proto", copy / "proto")
    return copy / "clients/java"


@pytest.fixture(scope="module")
def written(folder: Path) -> str:
    """The output of Maven, which builds and tests everything at once, as it is slow to start."""
    goals = (
        "spotless:check",
        "verify",
        "dependency:copy-dependencies",
        "-DincludeScope=test",
        f"-DoutputDirectory={folder / 'jars'}",
    )
    lint = "-Dmaven.compiler.failOnWarning=true"
    return run("mvn", "--batch-mode", "--no-transfer-progress", lint, *goals, folder=folder)


@pytest.fixture(scope="module")
def built(folder: Path, written: str) -> Path:
    """The folder of the jars."""
    return folder / "target"


@pytest.fixture(scope="module")
def client(built: Path) -> str:
    """A class path of the client and what it needs, as its README says."""
    return f"{built / f'{NAME}.jar'}{os.pathsep}{built / 'dependency'}{os.sep}*"


@pytest.fixture(scope="module")
def jars(folder: Path, client: str) -> str:
    """A class path of the client, and what its tests need."""
    return f"{client}{os.pathsep}{folder / 'jars'}{os.sep}*"


def test_its_own_tests_pass_and_neither_code_nor_documentation_has_a_warning(written: str) -> None:
    (summary,) = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$", written, re.MULTILINE)
    assert int(summary) > 100
    assert not re.findall(r"^\[(?:WARNING|ERROR)\].*", written, re.MULTILINE)


def test_its_jars_hold_the_contract_the_sources_and_the_documentation(built: Path) -> None:
    wanted = {
        "": ("META-INF/LICENSE", "abstractllm_api/v1/generation.proto", "io/abstractllm/v1/GenerateRequest.class"),
        "-sources": ("io/abstractllm/RemoteLLM.java", "io/abstractllm/v1/GenerateRequest.java"),
        "-javadoc": ("io/abstractllm/RemoteLLM.html", "io/abstractllm/v1/GenerateRequest.html"),
    }
    for kind, names in wanted.items():
        with zipfile.ZipFile(built / f"{NAME}{kind}.jar") as jar:
            assert all(any(entry.endswith(name) for entry in jar.namelist()) for name in names)


def test_its_project_file_says_all_that_a_publisher_asks_for_and_pins_every_version() -> None:
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    project = ElementTree.parse(CLIENT / "pom.xml").getroot()
    for name in (
        "name",
        "description",
        "url",
        "licenses/m:license/m:name",
        "developers/m:developer/m:name",
        "scm/m:url",
    ):
        assert project.findtext(f"m:{name}", namespaces=space), name
    assert (
        f"{project.findtext('m:artifactId', namespaces=space)}-{project.findtext('m:version', namespaces=space)}"
        == NAME
    )
    assert 'version = "0.1.0"' in (ROOT / "clients/python/pyproject.toml").read_text("utf-8")
    plugins = project.findall("m:build/m:plugins/m:plugin", space)
    assert plugins and all(plugin.findtext("m:version", namespaces=space) for plugin in plugins)


def test_generated_setters_are_formatted_as_the_project_s_formatter_would(tmp_path: Path) -> None:
    doc = " ".join(["Does what `a < b` & `stop` say, for me@host where x<y, and the-longest-of-words."] * 7)
    bounds = dict.fromkeys(("range", "length", "items", "keys"), Bounds(0, 1024, excludes_minimum=True))
    planted = [
        Parameter(name=prefix + kind, number=1, kind=kind, enum=enum, doc=doc, unit="tokens", **bounds)
        for kind, enum in [*((kind, "") for kind in KINDS), ("enum", "ReasoningEffort")]
        for prefix in ("a_", "with_a_long_name_")
    ]
    for path, text in emit(planted).items():
        file = tmp_path / path.relative_to("clients/java")
        file.parent.mkdir(parents=True)
        file.write_text(text, "utf-8")
    shutil.copy(CLIENT / "pom.xml", tmp_path)
    run("mvn", "--batch-mode", "--no-transfer-progress", "spotless:check", folder=tmp_path)


PRINTS = {
    "Ask": r"The capital of France is Paris\.\n.*12.*\(demo: \d+ \+ \d+ tokens\)",
    "Stream": r"1.*10.*\n.*cold.*\(stop, first token after \d+\.\d+ s\)\n.*Rome.*\n.*Tokyo",
    "Cancel": r"1.* \.\.\. enough\ntoo late: ",
    "JsonSchema": r"\S.* \d+\n$",
    "Errors": r"INVALID_REQUEST: parameters\.temperature must be .*2.*, not 5.*\nUNKNOWN_LLM: .*nobody",
}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_what_it_promises(client: str, demo_address: str, name: str) -> None:
    assert re.match(PRINTS[name], run("java", "-cp", client, EXAMPLES / f"{name}.java", demo_address), re.DOTALL)


async def test_the_example_with_tools_calls_the_function_and_answers(client: str) -> None:
    async def model(exchange: Exchange) -> None:
        last = exchange.request.json["messages"][-1]
        if last["role"] == "tool":
            await streaming(texts(f"They say: {last['content']}"))(exchange)
            return
        pieces = [call(0, "call_1", "weather", '{"city": "Paris"}'), chunk(finish="tool_calls"), "data: [DONE]\n\n"]
        await streaming(pieces)(exchange)

    async with serving(model) as upstream:
        llm = create_llm("openai", model="m", base_url=f"{upstream.url}/v1", api_key="sk-test")
        async with support.serving({"gpt": llm}) as running:
            example = EXAMPLES / "ChatWithTools.java"
            output = await asyncio.to_thread(run, "java", "-cp", client, example, running.server.address)
    assert output == 'calls weather with {"city": "Paris"}\nThey say: It is sunny in Paris.\n'


def readme_blocks() -> list[str]:
    return re.findall(r"^```java\n(.*?)^```", (CLIENT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


IMPORTS = """import io.abstractllm.*;
import io.abstractllm.v1.ListLlmsRequest;
import io.abstractllm.v1.ModelServiceGrpc;
import io.abstractllm.v1.ModelServiceGrpc.ModelServiceBlockingStub;
import io.grpc.ClientInterceptor;
import io.grpc.StatusRuntimeException;
import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.api.trace.*;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.ContextPropagators;
import io.opentelemetry.instrumentation.grpc.v1_6.GrpcTelemetry;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
"""
# The part of an application that uses OpenTelemetry: an SDK, and a span that is the current one.
TRACED = f"""
OpenTelemetrySdk.builder()
        .setPropagators(ContextPropagators.create(W3CTraceContextPropagator.getInstance()))
        .buildAndRegisterGlobal();
SpanContext remote = SpanContext.createFromRemoteParent(
        "{TRACEPARENT.split("-")[1]}", "{TRACEPARENT.split("-")[2]}", TraceFlags.getSampled(), TraceState.getDefault());
Context.root().with(Span.wrap(remote)).makeCurrent();
"""


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory, jars: str) -> str:
    """The README's programs, compiled: a class path of Block0, Block1, ..."""
    programs = tmp_path_factory.mktemp("readme")
    for number, block in enumerate(readme_blocks()):
        if block.startswith("import"):
            program = block.replace("class Ask", f"class Block{number}").replace('"127.0.0.1:50051"', "args[0]")
        else:
            before = TRACED if "GrpcTelemetry" in block else ""
            program = (
                f"{IMPORTS}class Block{number} {{\npublic static void main(String[] args) throws Exception {{\n"
                f"{before}try (var llm = new RemoteLLM(args[0])) {{\n{block}\n}}\n}}\n}}\n"
            )
        (programs / f"Block{number}.java").write_text(program, "utf-8")
    run("javac", "-cp", jars, "-d", programs / "classes", *sorted(programs.glob("*.java")))
    return f"{programs / 'classes'}{os.pathsep}{jars}"


WRITES = {
    'new RemoteLLM("127.0.0.1:50051")': r"The capital of France is Paris\.\n$",
    "Event.TextDelta": r".*12.*  \(stop\)\n$",
    "defaults(": r".*Rome.*\n$",
    "limit(5)": r"1, 2",
    "InvalidRequestException": r"parameters\.temperature must be .*2\.?\n$",
    "listLlms(": r"1\n$",
}


@pytest.mark.parametrize("sign", WRITES)
def test_a_program_of_the_readme_does_what_it_says(readme: str, demo_address: str, sign: str) -> None:
    (number,) = (number for number, block in enumerate(readme_blocks()) if sign in block)
    assert re.match(WRITES[sign], run("java", "-cp", readme, f"Block{number}", demo_address))


@pytest.mark.parametrize("sign", ["traceparent", "GrpcTelemetry"])
async def test_the_readme_s_ways_of_tracing_reach_the_server(readme: str, sign: str) -> None:
    (number,) = (number for number, block in enumerate(readme_blocks()) if sign in block)
    recorder = Recorder()
    async with recorder.serving() as address:
        await asyncio.to_thread(run, "java", "-cp", readme, f"Block{number}", address)
    assert recorder.metadata["traceparent"].split("-")[1] == TRACEPARENT.split("-")[1]


def test_every_program_of_the_readme_is_tried() -> None:
    signs = [*WRITES, "traceparent", "GrpcTelemetry", "roots.pem"]  # the last one is compiled, not run
    assert all(sum(sign in block for sign in signs) == 1 for block in readme_blocks())
    assert len(readme_blocks()) == len(signs)
