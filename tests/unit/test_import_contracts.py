"""The imports that must never exist: each contract fails on a planted one, and importing stays light."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN_CONTRACTS = [contract for contract in CONTRACTS if contract["type"] == "forbidden"]
LAYERS_CONTRACTS = [contract for contract in CONTRACTS if contract["type"] == "layers"]

PACKAGES = {
    "abstractllm": Path("abstractllm"),
    "abstractllm_server": Path("server/abstractllm_server"),
    "abstractllm_cli": Path("cli/abstractllm_cli"),
    "abstractllm_client": Path("clients/python/src/abstractllm_client"),
    "abstractllm_api": Path("clients/python/gen/abstractllm_api"),
}
SDKS = {"anthropic", "ollama", "openai", "ray", "torch", "transformers"}
HEAVY = {"accelerate", "huggingface_hub", "llguidance", "numpy", "safetensors", "tokenizers"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the product's packages and of the contracts, to plant imports in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in PACKAGES.values():
        shutil.copytree(ROOT / path, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__", "demo_model"))
    return tmp_path


def lint_imports(tree: Path, contract: str) -> subprocess.CompletedProcess[str]:
    """Runs one contract over a copy of the packages, whatever of them is installed."""
    folders = [str((tree / path).parent) for path in PACKAGES.values()]
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--contract", contract],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["id"])
def test_contract_holds(contract: dict[str, Any], tree: Path) -> None:
    result = lint_imports(tree, contract["id"])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("contract", FORBIDDEN_CONTRACTS, ids=lambda contract: contract["id"])
def test_forbidden_import_breaks_its_contract(contract: dict[str, Any], tree: Path) -> None:
    for source in contract["source_modules"]:
        lines = [f"import {name}\n" for name in contract["forbidden_modules"]]
        (module_path(tree, source).parent / "planted.py").write_text("".join(lines), "utf-8")

    result = lint_imports(tree, contract["id"])

    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract['name']} BROKEN" in result.stdout
    for source in contract["source_modules"]:
        for name in contract["forbidden_modules"]:
            assert f"{source}.planted -> {name}" in re.sub(r"\s+", " ", result.stdout)


@pytest.mark.parametrize("place", ["planted.py", "hosted/planted.py"])
def test_provider_or_what_they_share_importing_a_provider_breaks_its_contract(place: str, tree: Path) -> None:
    providers = tree / PACKAGES["abstractllm"] / "providers"
    (providers / place).write_text("import abstractllm.providers.huggingface.provider\n", "utf-8")

    result = lint_imports(tree, "providers")

    source = place.removesuffix(".py").replace("/", ".")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "No provider imports another provider BROKEN" in result.stdout
    assert f"abstractllm.providers.{source} -> abstractllm.providers.huggingface.provider" in result.stdout


@pytest.mark.parametrize("contract", LAYERS_CONTRACTS, ids=lambda contract: contract["id"])
def test_import_of_an_upper_layer_breaks_its_contract(contract: dict[str, Any], tree: Path) -> None:
    prefix = "".join(f"{container}." for container in contract.get("containers", ()))
    upper, lower = (prefix + re.split(r" [|:] ", contract["layers"][index])[0] for index in (0, -1))
    module = module_path(tree, lower)
    module.write_text(module.read_text("utf-8") + f"\nimport {upper}\n", "utf-8")

    result = lint_imports(tree, contract["id"])

    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract['name']} BROKEN" in result.stdout
    assert f"{lower} -> {upper}" in re.sub(r"\s+", " ", result.stdout)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("abstractllm.errors", "abstractllm.registry"),
        ("abstractllm._core.execution", "abstractllm.interface"),
        ("abstractllm.providers.huggingface.worker.request", "abstractllm.providers.huggingface.worker.server"),
        ("abstractllm_client.errors", "abstractllm_client._sync"),
    ],
)
def test_a_circle_is_noticed(lower: str, upper: str, tree: Path) -> None:
    module = module_path(tree, lower)
    module.write_text(module.read_text("utf-8") + f"\nimport {upper}\n", "utf-8")

    result = lint_imports(tree, "circles")

    assert result.returncode == 1, result.stdout + result.stderr
    assert "Nothing imports in a circle BROKEN" in result.stdout


def module_path(tree: Path, module: str) -> Path:
    """Finds the file of a module in a copy of the packages."""
    package, _, rest = module.partition(".")
    path = tree / PACKAGES[package] / rest.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_library_imports_no_sdk_and_nothing_of_grpc() -> None:
    loaded = modules_after("import abstractllm")
    assert "abstractllm" in loaded
    assert not loaded & (SDKS | HEAVY | {"grpc", "google", "msgspec", "rich", "typer", "yaml"})


def test_every_module_of_the_library_but_those_of_the_engines_processes_imports_no_sdk() -> None:
    loaded = modules_after(WALK.format(package="abstractllm"))
    assert "abstractllm.providers.huggingface.provider" in loaded
    assert not loaded & (SDKS | HEAVY | {"grpc", "google"})


def test_every_module_of_the_server_imports_no_sdk_and_no_client() -> None:
    loaded = modules_after(WALK.format(package="abstractllm_server"))
    assert {"abstractllm", "abstractllm_api", "abstractllm_server.app", "grpc"} <= loaded
    assert not loaded & (SDKS | HEAVY | {"abstractllm_client", "abstractllm_cli"})


def test_serving_loads_no_sdk_and_no_torch() -> None:
    loaded = modules_after(SERVE)
    assert {"abstractllm_server.app", "abstractllm.testing"} <= loaded
    assert not loaded & (SDKS | HEAVY | {"abstractllm_client", "abstractllm_cli"})


def test_client_imports_grpc_and_protobuf_alone() -> None:
    loaded = modules_after(WALK.format(package="abstractllm_client"))
    assert {"abstractllm_client", "abstractllm_api", "grpc", "google"} <= loaded
    needed = {"abstractllm_api", "abstractllm_client", "google", "grpc"}
    # What grpcio itself imports: its one dependency, and its sister packages where they are installed.
    needed |= {"cython_runtime", "grpc_health", "grpc_reflection", "typing_extensions"}
    # A leading underscore marks parts of the interpreter, of grpcio's extension, and editable installations.
    top_level = {name for name in loaded if "." not in name and not name.startswith("_")}
    assert top_level - sys.stdlib_module_names == needed & top_level


# Imports a package and every module under it, except programs and what only the local engine's processes load.
WALK = """
import importlib, pkgutil
package = importlib.import_module("{package}")
for module in pkgutil.walk_packages(package.__path__, "{package}.", onerror=lambda name: None):
    if not any(part in module.name for part in ("__main__", ".huggingface.worker", ".huggingface.hub.downloader")):
        importlib.import_module(module.name)
"""

# Starts a server whose only LLM plays a script, calls it, and stops it.
SERVE = """
import asyncio
from abstractllm.registry import LLMRegistry
from abstractllm_server.app import Server
from abstractllm_server.settings import load_settings

async def serve():
    settings = load_settings(None, {"listen": "127.0.0.1:0", "llms": {"echo": {"provider": "scripted"}}})
    async with Server(LLMRegistry.from_config(settings.llms), settings) as server:
        import grpc.aio
        from abstractllm_api.v1 import generation_pb2, generation_pb2_grpc
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            answer = await stub.Generate(generation_pb2.GenerateRequest(prompt="Hello"), timeout=30)
            assert answer.text == "Hello", answer

asyncio.run(serve())
"""


def modules_after(code: str) -> set[str]:
    """The full and the top-level names in `sys.modules` of a fresh interpreter that ran `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    names = result.stdout.split()
    return set(names) | {name.partition(".")[0] for name in names}
