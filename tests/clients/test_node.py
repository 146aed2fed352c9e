"""The Node client: its own tests, its README's programs, its examples, its types, and that its code is in order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractllm import create_llm
from tests.clients.toolchains import require
from tests.interop.recorder import Recorder
from tests.providers.fake_http import Exchange, serving, streaming
from tests.providers.openai_server import call, chunk, texts
from tests.server import support

require("node")

ROOT = Path(__file__).resolve().parents[2]
CLIENT, EXAMPLES = ROOT / "clients/node", ROOT / "examples/node"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

pytestmark = pytest.mark.timeout(900)  # a first build downloads what the tools need


def run(*command: object, folder: Path = CLIENT) -> str:
    """Run a program, and return its output."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-8000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    run("sh", ROOT / "tests/interop/runners/node/build.sh")


def test_the_code_is_formatted_and_passes_the_linter() -> None:
    run("npm", "run", "lint")


def test_its_own_tests_pass() -> None:
    run("npm", "test")


def test_its_own_tests_pass_with_the_oldest_versions_that_it_takes(tmp_path: Path) -> None:
    for name in run("git", "ls-files").split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLIENT / name, tmp_path / name)
    (tmp_path / "package-lock.json").unlink()
    package = json.loads((tmp_path / "package.json").read_text("utf-8"))
    package["dependencies"] = {name: versions.removeprefix("^") for name, versions in package["dependencies"].items()}
    (tmp_path / "package.json").write_text(json.dumps(package))
    run("npm", "install", "--silent", "--no-audit", "--no-fund", folder=tmp_path)
    for name, version in package["dependencies"].items():
        assert f'"version": "{version}"' in (tmp_path / f"node_modules/{name}/package.json").read_text("utf-8")
    run("npm", "run", "build", folder=tmp_path)
    run("npm", "test", folder=tmp_path)


def test_it_says_its_version() -> None:
    version = json.loads((CLIENT / "package.json").read_text("utf-8"))["version"]
    assert f'version = "{version}"' in (ROOT / "clients/python/pyproject.toml").read_text("utf-8")


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text("utf-8"))
    packages = [entry for name, entry in lock["packages"].items() if name]
    assert packages and all("integrity" in entry and "resolved" not in entry for entry in packages)


USE = """
import { FinishReason, RateLimitedError, RemoteLLM } from "@abstractllm/client";
import type { ChatMessage, Completion, Event, GenerateOptions } from "@abstractllm/client";
import { GenerateRequest } from "@abstractllm/client/v1";

using llm = new RemoteLLM("127.0.0.1:1", { llm: "gpt", defaults: { temperature: 0, timeout: undefined } });
const options: GenerateOptions = { seed: 5n, logitBias: { 5: 1 }, reasoningEffort: "high" };
const text: Promise<string> = llm.generate("Hi", options);
const events: AsyncIterableIterator<Event> = llm.stream([{ role: "user", content: "Hi" }]);
export async function turn(messages: ChatMessage[]): Promise<ChatMessage[]> {
  const answer: Completion = await llm.complete(messages);
  if (answer.finishReason === FinishReason.STOP) return [...messages, answer.message];
  for await (const event of events) if (event.type === "finished") return event.message ? [event.message] : [];
  return [{ role: "user", parts: [{ type: "text", text: await text }] }];
}
export const request = GenerateRequest.create({ input: { $case: "prompt", value: "Hi" } });
export const again = (error: unknown) => error instanceof RateLimitedError && (error.retryAfter ?? 1) > 0;

// @ts-expect-error: no such option
llm.generate("Hi", { max_tokens: 5 });
// @ts-expect-error: neither one model nor all
llm.clearModelCache({});
"""


@pytest.mark.parametrize("module", [("nodenext", "nodenext"), ("esnext", "bundler")], ids="-".join)
def test_its_types_are_complete_for_a_strict_program(tmp_path: Path, module: tuple[str, str]) -> None:
    modules = tmp_path / "node_modules"
    (modules / "@abstractllm/client").mkdir(parents=True)
    shutil.copytree(CLIENT / "dist", modules / "@abstractllm/client/dist")
    shutil.copy(CLIENT / "package.json", modules / "@abstractllm/client")
    for name in ("@bufbuild", "@grpc", "@js-sdsl", "@protobufjs", "@types", "protobufjs", "long", "undici-types"):
        (modules / name).symlink_to(CLIENT / "node_modules" / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(USE)
    kind, resolution = module
    run(
        CLIENT / "node_modules/.bin/tsc",
        *("--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"),
        *("--target", "es2022", "--lib", "es2022,esnext.disposable", "--types", "node"),
        *("--module", kind, "--moduleResolution", resolution, "use.ts"),
        folder=tmp_path,
    )


@pytest.fixture(scope="module")
def examples() -> Path:
    """The folder of examples, after `npm install` has put the client there."""
    run("npm", "install", "--silent", "--no-audit", "--no-fund", folder=EXAMPLES)
    return EXAMPLES


PRINTS = {
    "ask": r"The capital of France is Paris\.\n.*12.*\(demo: \d+ \+ \d+ tokens\)",
    "stream": r"1.*10.*\n.*cold.*\(stop, first token after \d+\.\d+ s\)\n.*Rome.*\n.*Tokyo",
    "cancel": r"1.* \.\.\. enough\ntoo late: ",
    "json_schema": r"\S.* \d+\n$",
    "errors": r"INVALID_REQUEST: parameters\.temperature must be .*2.*, not 5.*\nUNKNOWN_LLM: .*nobody",
}


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_its_answers(examples: Path, demo_address: str, name: str) -> None:
    assert re.match(PRINTS[name], run("node", f"{name}.mjs", demo_address, folder=examples), re.DOTALL)


async def test_the_example_with_tools_calls_the_function_and_answers(examples: Path) -> None:
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
            address = running.server.address
            output = await asyncio.to_thread(run, "node", "chat_with_tools.mjs", address, folder=examples)
    assert output == 'calls weather with {"city": "Paris"}\nThey say: It is sunny in Paris.\n'


# The output of each program of the README, by words that stand in no other one.
OUTPUTS = {
    "console.log(await llm.generate(": "The capital of France is Paris.\n",
    "event.usage": "(stop, ",
    "AbortSignal": "1, 2, 3, 4, 5",
    "catch (error)": "parameters.temperature must be at most 2\n",
    "stubs": "1\n",
}
IN_SPAN = """
const { NodeTracerProvider } = await import("@opentelemetry/sdk-trace-node");
const { ROOT_CONTEXT, trace } = await import("@opentelemetry/api");
new NodeTracerProvider().register();
const [, traceId, spanId] = process.argv[2].split("-");
const span = trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: 1 });
await context.with(span, () => traced.generate("Hi"));
"""
TRACES = {"metadata: {": "", "propagation": IN_SPAN}
NO_CALL = ("roots.pem",)  # these make a client, and call no server


def readme_block(sign: str) -> str:
    """Return the program of the README that has some words."""
    (block,) = (block for block in readme_blocks() if sign in block)
    return block


def readme_blocks() -> list[str]:
    return re.findall(r"^```js\n(.*?)^```", (CLIENT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def program_folder() -> Iterator[Path]:
    """A folder whose programs can import the package by its name, and the packages that it is developed with."""
    folder = CLIENT / f"build/readme-{os.getpid()}"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def program(block: str, address: str, ending: str = "") -> str:
    """Make a whole program of a block, for this address; most blocks go on with the client of the first one."""
    if "127.0.0.1:50051" in block:
        return block.replace("127.0.0.1:50051", address) + ending
    head = f'import {{ RemoteLLM }} from "@abstractllm/client";\nconst llm = new RemoteLLM("{address}");\n'
    return head + block + ending


@pytest.mark.parametrize("sign", OUTPUTS)
def test_a_program_of_the_readme_does_what_it_says(program_folder: Path, demo_address: str, sign: str) -> None:
    (program_folder / "program.mjs").write_text(program(readme_block(sign), demo_address))
    assert OUTPUTS[sign] in run("node", "program.mjs", folder=program_folder)


@pytest.mark.parametrize("sign", TRACES)
async def test_the_readme_s_ways_of_tracing_reach_the_server(program_folder: Path, sign: str) -> None:
    recorder = Recorder()
    block = readme_block(sign)
    if TRACES[sign]:
        block = f'import {{ RemoteLLM }} from "@abstractllm/client";\n{block}'
    async with recorder.serving() as address:
        (program_folder / "program.mjs").write_text(program(block, address, TRACES[sign]))
        await asyncio.to_thread(run, "node", "program.mjs", TRACEPARENT, folder=program_folder)
    assert recorder.metadata["traceparent"] == TRACEPARENT


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is missing")
def test_the_readme_s_client_with_certificates_is_made(program_folder: Path) -> None:
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test")
    run(*request, "-keyout", "client.key", "-out", "client.pem", folder=program_folder)
    shutil.copy(program_folder / "client.pem", program_folder / "roots.pem")
    ending = "\nconsole.log(secured.address);\n"
    (program_folder / "program.mjs").write_text(program(readme_block("roots.pem"), "127.0.0.1:1", ending))
    assert run("node", "program.mjs", folder=program_folder) == "127.0.0.1:50052\n"


def test_every_program_of_the_readme_is_tried() -> None:
    signs = [*OUTPUTS, *TRACES, *NO_CALL]
    assert [sum(sign in block for sign in signs) for block in readme_blocks()] == [1] * len(signs)
