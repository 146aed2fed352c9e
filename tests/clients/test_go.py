"""The Go client: its tests, the programs of its README, its examples, and the form of its code."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from abstractllm import create_llm
from tests.clients.toolchains import require
from tests.interop.recorder import Recorder
from tests.providers.fake_http import Exchange, serving, streaming
from tests.providers.openai_server import call, chunk, texts
from tests.server import support

require("go")

ROOT = Path(__file__).resolve().parents[2]
CLIENT, EXAMPLES, INTEROP = ROOT / "clients/go", ROOT / "examples/go", ROOT / "tests/interop"
MODULE = "github.com/abstractllm/abstractllm-go"

pytestmark = pytest.mark.timeout(900)  # the first build downloads and compiles grpc-go


def go(*arguments: object, folder: Path, **environment: str) -> str:
    """Run the go command and return its standard output."""
    command = ["go", *map(str, arguments)]
    completed = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=800, env=os.environ | environment, check=False
    )
    assert completed.returncode == 0, f"{' '.join(command)}\n{completed.stdout[-8000:]}{completed.stderr[-8000:]}"
    return completed.stdout


@pytest.mark.parametrize("module", [CLIENT, EXAMPLES, INTEROP], ids=["client", "examples", "interop"])
def test_the_code_is_formatted_and_passes_vet(module: Path) -> None:
    go("vet", "./...", folder=module)
    go("mod", "verify", folder=module)
    go("mod", "tidy", "-diff", folder=module)
    unformatted = subprocess.run(["gofmt", "-l", "."], cwd=module, capture_output=True, text=True, check=True).stdout
    assert unformatted == ""


def test_its_own_tests_pass() -> None:
    race = ["-race"] if go("env", "CGO_ENABLED", folder=CLIENT).strip() == "1" else []
    go("test", *race, "-timeout", "10m", "./...", folder=CLIENT)


def test_it_builds_for_windows_too() -> None:
    go("build", "./...", folder=CLIENT, GOOS="windows", CGO_ENABLED="0")


def test_it_says_its_version() -> None:
    (version,) = re.findall(r'^const Version = "([^"]+)"', (CLIENT / "doc.go").read_text("utf-8"), re.MULTILINE)
    assert f'version = "{version}"' in (ROOT / "clients/python/pyproject.toml").read_text("utf-8")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built examples."""
    folder = tmp_path_factory.mktemp("programs")
    go("build", "-o", f"{folder}{os.sep}", "./...", folder=EXAMPLES)
    return folder


def run(*command: object) -> str:
    """Run a program and return its standard output."""
    completed = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


PRINTS = {
    "ask": r"The capital of France is Paris\.\n.*12.*\(demo: \d+ \+ \d+ tokens\)",
    "stream": r"1.*10.*\n.*cold.*\(stop, first token after \d+\.\d+ s\)\n.*Rome.*\n.*Tokyo",
    "cancel": r"1.* \.\.\. enough\ntoo late: ",
    "json_schema": r"\S.* \d+\n$",
    "errors": r"INVALID_REQUEST: parameters\.temperature must be .*2.*, not 5.*\nUNKNOWN_LLM: .*nobody",
}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_what_it_promises(programs: Path, demo_address: str, name: str) -> None:
    assert re.match(PRINTS[name], run(programs / name, demo_address), re.DOTALL)


async def test_the_example_with_tools_calls_the_function_and_answers(programs: Path) -> None:
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
            output = await asyncio.to_thread(run, programs / "chat_with_tools", running.server.address)
    assert output == 'calls weather with {"city": "Paris"}\nThey say: It is sunny in Paris.\n'


# The imports of the README's programs, by the name that the programs use.
IMPORTS = {
    "abstractllm": MODULE,
    "abstractllmv1": f"{MODULE}/abstractllmv1",
    "context": "context",
    "errors": "errors",
    "fmt": "fmt",
    "grpc": "google.golang.org/grpc",
    "log": "log",
    "metadata": "google.golang.org/grpc/metadata",
    "os": "os",
    "otel": "go.opentelemetry.io/otel",
    "otelgrpc": "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
    "propagation": "go.opentelemetry.io/otel/propagation",
    "trace": "go.opentelemetry.io/otel/trace",
}
GO_MOD = f"""module readme

go 1.26.0

require (
	{MODULE} v0.1.0
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.72.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/trace v1.47.0
)

replace {MODULE} => {CLIENT}
"""
TRACED = """
	_ = traced
	id, _ := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	span, _ := trace.SpanIDFromHex("b7ad6b7169203331")
	config := trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled}
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(config))
	_, err = traced.Generate(ctx, abstractllm.String("Hi"))
	if err != nil {
		return err
	}
"""


def readme_blocks() -> list[str]:
    return re.findall(r"^```go\n(.*?)^```", (CLIENT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def program_of(block: str) -> str:
    """Return a program that runs a block of the README with its `ctx` and `llm`."""
    if block.startswith("package main"):
        return block
    extra = TRACED if "otelgrpc" in block else ""
    head = (
        "llm, err := abstractllm.NewRemoteLLM(os.Args[1])\n\tif err != nil {\n\t\treturn err\n\t}\n\tdefer llm.Close()"
    )
    body = (
        "func do(ctx context.Context, llm *abstractllm.RemoteLLM) error {\n" + block + extra + "\treturn nil\n}\n\n"
        f"func run() error {{\n\t{head}\n\treturn do(context.Background(), llm)\n}}\n\n"
        "func main() {\n\tif err := run(); err != nil {\n\t\tlog.Fatal(err)\n\t}\n}\n"
    )
    used = [path for name, path in IMPORTS.items() if re.search(rf"\b{name}\.", body)]
    return "package main\n\nimport (\n" + "".join(f'\t"{path}"\n' for path in used) + ")\n\n" + body


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the README's programs, in which built/block0 is the first."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "go.mod").write_text(GO_MOD)
    for number, block in enumerate(readme_blocks()):
        (folder / f"block{number}").mkdir()
        (folder / f"block{number}/main.go").write_text(program_of(block))
    go("mod", "tidy", folder=folder)
    (folder / "built").mkdir()
    go("build", "-o", f"{folder / 'built'}{os.sep}", "./...", folder=folder)
    return folder


WRITES = {
    'NewRemoteLLM("127.0.0.1:50051")': "The capital of France is Paris.\n",
    "StreamText(": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    "abstractllm.Finished": "12. stop\n",
    "ErrRateLimited": "parameters.temperature must be at most 2\n",
    "ListLlms": "1\n",
}


@pytest.mark.parametrize("sign", WRITES)
def test_a_program_of_the_readme_does_what_it_says(readme: Path, demo_address: str, sign: str, tmp_path: Path) -> None:
    (number,) = (number for number, block in enumerate(readme_blocks()) if sign in block)
    program = readme / f"block{number}/main.go"
    if "50051" in program.read_text():
        program.write_text(program.read_text().replace("127.0.0.1:50051", demo_address))
        written = go("run", f"./block{number}", folder=readme)
    else:
        written = run(readme / f"built/block{number}", demo_address)
    assert WRITES[sign] in written


@pytest.mark.parametrize("sign", ["AppendToOutgoingContext", "otelgrpc"])
async def test_the_readme_s_ways_of_tracing_reach_the_server(readme: Path, sign: str) -> None:
    (number,) = (number for number, block in enumerate(readme_blocks()) if sign in block)
    recorder = Recorder()
    async with recorder.serving() as address:
        await asyncio.to_thread(run, readme / f"built/block{number}", address)
    assert recorder.metadata["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_every_program_of_the_readme_is_tried() -> None:
    signs = [*WRITES, "AppendToOutgoingContext", "otelgrpc", "roots.pem"]  # the last one is built, not run
    assert all(sum(sign in block for sign in signs) == 1 for block in readme_blocks())
    assert len(readme_blocks()) == len(signs)
