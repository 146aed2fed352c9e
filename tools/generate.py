"""Generates the client code from proto/, or checks that the committed code is what it would generate.

The generators live in a virtual environment of their own, `.venv-generate`, with exact versions:
grpcio-tools 1.81 writes code that protobuf 6.33.5 and every later runtime can load, but does not
itself run with the protobuf 7.35 that the server's health and reflection packages need.

Usage: python tools/generate.py [--check]
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-generate"
PINS = (
    "buf-bin==1.75.0",
    "grpcio==1.81.1",
    "grpcio-tools==1.81.1",
    "mypy-protobuf==5.1.0",
    "protobuf==6.33.6",
)
# Folders of generated files alone: whatever else is in them is removed.
GENERATED = (Path("clients/python/gen"),)
PACKAGES = {
    "clients/python/gen/abstractllm_api": "Generated code of the AbstractLLM gRPC contract.",
    "clients/python/gen/abstractllm_api/v1": "Version 1 of the AbstractLLM gRPC contract.",
}


def prepare_environment() -> dict[str, str]:
    """Creates the generators' environment where it is missing or of other versions.

    Returns:
        The environment variables to run the generators with.

    Raises:
        subprocess.CalledProcessError: If pip failed.
    """
    scripts = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
    stamp = ENVIRONMENT / "pins.txt"
    wanted = "\n".join(PINS)
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        print(f"preparing {ENVIRONMENT.name} with {', '.join(PINS)}", flush=True)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS], check=True)
        stamp.write_text(wanted, "utf-8")
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONHASHSEED": "0"}


def generate_into(folder: Path) -> None:
    """Writes all generated folders below another root.

    Args:
        folder: The root to write below; the repository's own tree is left as it is.

    Raises:
        subprocess.CalledProcessError: If pip or buf failed.
    """
    variables = prepare_environment()
    buf = shutil.which("buf", path=variables["PATH"])
    assert buf is not None, f"{ENVIRONMENT} has no buf: delete it and try again"
    subprocess.run([buf, "generate", "--output", str(folder)], cwd=ROOT, env=variables, check=True)
    for package, summary in PACKAGES.items():
        (folder / package / "__init__.py").write_text(f'"""{summary}"""\n', "utf-8")
    (folder / "clients/python/gen/abstractllm_api/py.typed").touch()


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
    parser = argparse.ArgumentParser(description="Generate the client code from proto/.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the code is stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as temporary:
        generate_into(Path(temporary))
        found = []
        for folder in GENERATED:
            fresh, committed = Path(temporary) / folder, ROOT / folder
            if check:
                found += [f"{folder}: {line}" for line in differences(fresh, committed)]
            else:
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh, committed)
    if found:
        print("\n".join(found), file=sys.stderr)
        print("The generated code is not what proto/ gives; run `make generate` and commit.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
