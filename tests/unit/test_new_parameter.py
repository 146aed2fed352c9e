"""A parameter that is planted in the contract, and nowhere else, reaches the LLM in every way of asking."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tools import generate
from tools.emit import model_parameter
from tools.parameter_table import FILE

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "abstractllm",
    "server/abstractllm_server",
    "cli/abstractllm_cli",
    "clients/python/src",
    "clients/python/gen",
)
PLANTED = """\
  // Locally typical sampling; 1 is off.
  // Range: (0, 1].
  optional double typical_p = 15;
}

// How long a reasoning model may think before it answers.
enum ReasoningEffort {"""
STUB = """\
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
from google.protobuf import duration_pb2, struct_pb2
from abstractllm_api.v1 import errors_pb2

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({file!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "abstractllm_api.v1.generation_pb2", globals())
"""
FOLLOW = """
import asyncio, json, subprocess, sys
import abstractllm, abstractllm_client
from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm_client import AsyncRemoteLLM
from abstractllm_server.app import Server
from abstractllm_server.settings import load_settings

def refusal(call):
    try:
        call()
    except (abstractllm.AbstractLLMError, abstractllm_client.AbstractLLMError) as error:
        return f"{error.reason} {error.field} {error.limit}"

llm = ScriptedProvider()
seen = {}

def note(way):
    seen[way] = llm.requests[-1].parameters.typical_p

llm.generate("Hi", typical_p=0.5)
note("library")
seen["library refuses"] = refusal(lambda: llm.generate("Hi", typical_p=0.0))
seen["default"] = abstractllm.create_llm("scripted", typical_p=0.125).get_config()["typical_p"]
seen["keys"] = [str(abstractllm.ModelParameter.TYPICAL_P), str(abstractllm_client.ModelParameter.TYPICAL_P)]

async def serve():
    settings = load_settings(None, {"listen": "127.0.0.1:0", "llms": {"echo": {"provider": "scripted"}}})
    async with Server(LLMRegistry({"echo": llm}), settings) as server:
        remote = AsyncRemoteLLM(server.address)
        await remote.generate("Hi", typical_p=0.25)
        note("client and server")
        await remote.set_config(typical_p=0.375)
        seen["configuration"] = (await remote.get_config())["typical_p"]
        seen["capability"] = "typical_p" in (await remote.get_capabilities())["parameters"]
        command = [sys.executable, "-m", "abstractllm_cli", "generate", "--address", server.address]
        process = await asyncio.create_subprocess_exec(*command, "--typical-p", "0.75", "Hi", stdout=-3)
        assert await process.wait() == 0
        note("command")
        await remote.close()

asyncio.run(serve())
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product in which the contract has one parameter more, and what is generated has been written."""
    copy = tmp_path_factory.mktemp("planted")
    for name in (*PACKAGES, "proto", "docs", "deploy"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "demo_model"))
    shutil.copy(ROOT / "buf.yaml", copy)
    contract = copy / "proto" / FILE
    text, count = re.subn(
        r"^\}\n\n// How long a reasoning.*\nenum ReasoningEffort \{", PLANTED, contract.read_text("utf-8"), flags=re.M
    )
    assert count == 1
    contract.write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "ROOT", copy)
        patch.setattr(generate, "prepare_python", lambda: Path(sys.executable).parent)
        descriptors = generate.build_descriptors(copy)
        assert generate.emit_all(descriptors, check=False) == []
    (file,) = (file for file in FileDescriptorSet.FromString(descriptors.read_bytes()).file if file.name == FILE)
    file.ClearField("source_code_info")
    stub = STUB.format(file=file.SerializeToString())
    (copy / "clients/python/gen/abstractllm_api/v1/generation_pb2.py").write_text(stub, "utf-8")
    return copy


def test_it_reaches_the_llm_from_the_library_the_client_the_server_and_the_command(tree: Path) -> None:
    folders = [tree, tree / "server", tree / "cli", tree / "clients/python/src", tree / "clients/python/gen"]
    result = subprocess.run(
        [sys.executable, "-c", FOLLOW],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "library": 0.5,
        "library refuses": "INVALID_REQUEST parameters.typical_p greater than 0",
        "default": 0.125,
        "keys": ["typical_p", "typical_p"],
        "client and server": 0.25,
        "configuration": 0.375,
        "capability": True,
        "command": 0.75,
    }


def test_it_is_in_the_code_of_every_language_and_in_the_documentation(tree: Path) -> None:
    written = {
        "clients/go/parameters_generated.go": "func WithTypicalP(value float64) GenerateOption",
        "clients/java/src/main/java/io/abstractllm/GenerationParameterSetters.java": "typicalP(double value)",
        "clients/node/src/generation-parameters.ts": "typicalP?: number",
        "clients/python/src/abstractllm_client/_parameter_types.py": "typical_p: float | None",
        "docs/configuration.md": "| `typical_p` | above 0 and at most 1 | Locally typical sampling; 1 is off. |",
        "docs/reference.md": "| 15 | `typical_p` | double | optional | Locally typical sampling; 1 is off.",
        **{str(path): 'TYPICAL_P = "typical_p"' for path in model_parameter.FILES},
    }
    for path, text in written.items():
        assert text in (tree / path).read_text("utf-8"), path


def test_the_page_lists_the_files_that_are_touched_by_hand_and_they_are_few() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    start, end = (
        "<!-- The files that are touched by hand for a new generation parameter. -->",
        "<!-- End of the files. -->",
    )
    listed = re.findall(r"\d\. `([^`]+)`", page.partition(start)[2].partition(end)[0])
    assert len(listed) <= 9
    # Three parameters that are plain numbers; together every kind of provider takes them.
    naming = files_that_name({"min_p", "presence_penalty", "top_k"})
    assert sorted(listed) == sorted({*naming, "proto/abstractllm_api/v1/generation.proto"})


def files_that_name(parameters: set[str]) -> set[str]:
    """Finds the files of the product, other than generated ones, whose code names one of some parameters."""
    files = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "gen" not in path.parts):
        text = path.read_text("utf-8")
        if "Generated by tools/generate.py" not in text and names_in(text) & parameters:
            files.add(path.relative_to(ROOT).as_posix())
    return files


def names_in(source: str) -> set[object]:
    """Lists the names and the whole texts of a module; comments and docstrings are not among them."""
    names: set[object] = set()
    for node in ast.walk(ast.parse(source)):
        for attribute in ("id", "arg", "attr", "value"):
            names.add(value) if isinstance(value := getattr(node, attribute, None), str) else None
    return names
