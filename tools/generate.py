"""Generates everything that follows from proto/ or from a table, or checks that what is committed is that.

That is each language's messages and stubs, whatever lists the generation parameters or the keys of a configuration
(`tools/emit/`), the Python client's synchronous face, the contract's reference, and the pages of limits and metrics.

The generators live in a virtual environment of their own, `.venv-generate`, with exact versions:
grpcio-tools 1.81 writes code that protobuf 6.33.5 and every later runtime can load, but does not
itself run with the protobuf 7.35 that the server's health and reflection packages need.
Go's and Node's come with their own tools. Without Go or npm that language's code is left as it is; with CI=true
that is an error. Java's is made by each build and not committed.

Usage: python -m tools.generate [--check]
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import async_to_sync, reference
from tools.emit import config_values, documentation, go, java, library, model_parameter, node, python_client
from tools.parameter_table import read_table

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-generate"
PINS = (
    "buf-bin==1.75.0",
    "grpcio==1.81.1",
    "grpcio-tools==1.81.1",
    "mypy-protobuf==5.1.0",
    "protobuf==6.33.6",
)
GO_PLUGINS = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
)
PYTHON_PACKAGES = {
    "clients/python/gen/abstractllm_api": "Generated code of the AbstractLLM gRPC contract.",
    "clients/python/gen/abstractllm_api/v1": "Version 1 of the AbstractLLM gRPC contract.",
}


@dataclass(frozen=True)
class Language:
    """One language, and the steps that generate its code.

    Attributes:
        folder: A folder of generated files alone; other files in it are removed.
        template: The template that `buf generate` runs.
        tool: The program that the plugins need.
        prepare: Installs the plugins, and returns their folder.
        finish: Adds what the plugins leave out, below the root that it gets.
    """

    folder: Path
    template: Path
    tool: str
    prepare: Callable[[], Path]
    finish: Callable[[Path], None] = lambda root: None


def prepare_python() -> Path:
    """Creates the generators' environment where it is missing or of other versions."""
    scripts = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    stamp = ENVIRONMENT / "pins.txt"
    wanted = "\n".join(PINS)
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"preparing {ENVIRONMENT.name} with {', '.join(PINS)}", flush=True)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS], check=True)
        stamp.write_text(wanted, "utf-8")
    return scripts


def finish_python(root: Path) -> None:
    """Makes packages of the folders, and marks them as typed."""
    for package, summary in PYTHON_PACKAGES.items():
        (root / package / "__init__.py").write_text(f'"""{summary}"""\n', "utf-8")
    (root / "clients/python/gen/abstractllm_api/py.typed").touch()


def prepare_go() -> Path:
    """Builds the plugins where they are missing or of other versions."""
    folder = ENVIRONMENT / "go"
    stamp = folder / "pins.txt"
    wanted = "\n".join(GO_PLUGINS)
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"preparing {', '.join(GO_PLUGINS)}", flush=True)
        for plugin in GO_PLUGINS:
            subprocess.run(["go", "install", plugin], env={**os.environ, "GOBIN": str(folder)}, check=True)
        stamp.write_text(wanted, "utf-8")
    return folder


def prepare_node() -> Path:
    """Installs what the client's lock file names, where it changed."""
    client = ROOT / "clients/node"
    modules = client / "node_modules"
    installed, lock = modules / ".package-lock.json", client / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(["npm", "ci", "--silent"], cwd=client, check=True)
    return modules / ".bin"


PYTHON = Language(
    Path("clients/python/gen"), Path("clients/python/buf.gen.yaml"), sys.executable, prepare_python, finish_python
)
LANGUAGES = (
    PYTHON,
    Language(Path("clients/go/abstractllmv1"), Path("clients/go/buf.gen.yaml"), "go", prepare_go),
    Language(Path("clients/node/src/gen"), Path("clients/node/buf.gen.yaml"), "npm", prepare_node),
)


def available_languages() -> list[Language]:
    """Lists the languages whose code can be generated on this machine.

    Raises:
        SystemExit: If a tool is missing and CI=true.
    """
    available = []
    for language in LANGUAGES:
        if shutil.which(language.tool):
            available.append(language)
        elif os.environ.get("CI") == "true":
            sys.exit(f"{language.folder}: {language.tool} is not installed")
        else:
            print(f"{language.folder}: left as it is, as {language.tool} is not installed", flush=True)
    return available


def generate_into(folder: Path, languages: list[Language]) -> None:
    """Writes generated folders below another root.

    Args:
        folder: The root to write below; the repository's own tree is left as it is.
        languages: The languages to generate.

    Raises:
        subprocess.CalledProcessError: If an installation or buf failed.
    """
    scripts = prepare_python()  # buf is there
    for language in languages:
        path = os.pathsep.join(map(str, (language.prepare(), scripts, os.environ["PATH"])))
        command = [str(scripts / "buf"), "generate", "--template", str(language.template), "--output", str(folder)]
        environment = {**os.environ, "PATH": path, "PYTHONHASHSEED": "0"}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        language.finish(folder)


def build_descriptors(folder: Path) -> Path:
    """Writes the contract's descriptors, with the comments of the .proto files, into a folder.

    Returns:
        The file.
    """
    descriptors = folder / "contract.binpb"
    buf = [str(prepare_python() / "buf"), "build", "--as-file-descriptor-set", "--output", str(descriptors)]
    subprocess.run(buf, cwd=ROOT, check=True)
    return descriptors


def write_or_compare(texts: Mapping[Path, str], check: bool) -> list[str]:
    """Writes files below the root or, for a check, tells which of them differ.

    Returns:
        One line for each file that differs; empty where they were written.
    """
    stale = []
    for path, text in texts.items():
        file = ROOT / path
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        elif not file.exists() or file.read_text("utf-8") != text:
            stale.append(f"differs: {path}")
    return stale


def contract_files(descriptors: Path) -> dict[Path, str]:
    """Makes what follows from the contract beside the languages' messages and stubs.

    Args:
        descriptors: The file that `build_descriptors` wrote.

    Returns:
        The text of each file by its path.
    """
    parameters = read_table(descriptors)
    texts = {**reference.emit(descriptors), **documentation.emit(parameters, ROOT), **async_to_sync.emit()}
    for language in (library, python_client, go, java, node):
        texts |= language.emit(parameters)
    return texts


def emit_all(descriptors: Path, check: bool) -> list[str]:
    """Writes, or compares, the files that are no language's messages and stubs.

    Args:
        descriptors: The file that `build_descriptors` wrote.
        check: True to compare only.

    Returns:
        One line for each file that differs.
    """
    stale = write_or_compare(contract_files(descriptors), check)
    # The library, whose configurations these read, has the parameters by now, and so has their page.
    from tools import chart_files, limits_page, metrics_page

    texts = {**model_parameter.emit(read_table(descriptors)), **config_values.emit()}
    texts |= {**limits_page.emit(ROOT), **metrics_page.emit(ROOT), **chart_files.emit(ROOT)}
    return stale + write_or_compare(texts, check)


def files_of(folder: Path) -> set[Path]:
    """Lists the files below a folder, relative to it, without Python's caches."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in files if "__pycache__" not in path.parts}


def differences(fresh: Path, committed: Path) -> list[str]:
    """Tells how a committed folder differs from a fresh one.

    Returns:
        One line for each file that is missing, stale or not generated; empty where all is well.
    """
    new, old = files_of(fresh), files_of(committed)
    lines = [f"missing: {path}" for path in sorted(new - old)]
    lines += [f"not generated: {path}" for path in sorted(old - new)]
    return lines + [
        f"differs: {path}"
        for path in sorted(new & old)
        if not filecmp.cmp(fresh / path, committed / path, shallow=False)
    ]


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status: 0 on success, 1 where `--check` found a difference.
    """
    parser = argparse.ArgumentParser(description="Generate the client code and the reference from proto/.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where something is stale")
    check = parser.parse_args().check
    languages = available_languages()
    stale = []
    with tempfile.TemporaryDirectory() as temporary:
        generate_into(Path(temporary), languages)
        for folder in (language.folder for language in languages):
            fresh, committed = Path(temporary) / folder, ROOT / folder
            if check:
                stale += [f"{folder}: {line}" for line in differences(fresh, committed)]
            else:
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh, committed)
        stale += emit_all(build_descriptors(Path(temporary)), check)
    if stale:
        print("\n".join(stale), file=sys.stderr)
        print("What is generated is not what it follows from; run `make generate` and commit.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
