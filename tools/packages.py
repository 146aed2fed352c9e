"""Builds what is published: `make packages`, or `python tools/packages.py [--output dist] [LANGUAGE ...]`.

    dist/python/   wheels and source distributions of abstractllm-client and abstractllm-grpc
    dist/java/     jar, sources, documentation and POM of io.abstractllm:abstractllm-client
    dist/node/     the npm tarball of @abstractllm/client
    dist/go/       a folder that is a Go module proxy: GOPROXY=file://.../dist/go
    dist/helm/     the Helm chart

Everything is built from what git tracks, or from what the language's own tool chooses of it.
"""

import argparse
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GO_MODULE = "github.com/abstractllm/abstractllm-go"


def version() -> str:
    """Returns the version of all packages, from the Python client's project file.

    Raises:
        ValueError: If it is not there.
    """
    declaration = re.search(
        r'^version = "([^"]+)"', (ROOT / "clients/python/pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    if declaration is None:
        raise ValueError("clients/python/pyproject.toml names no version")
    return declaration[1]


def build_time() -> str:
    """Returns the time that archives are dated with: SOURCE_DATE_EPOCH where it is set, as a release does, else now."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    time = datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def run(*command: str, folder: Path) -> None:
    """Runs a tool, and shows its output only where it fails.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    completed = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if completed.returncode != 0:
        print(completed.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(completed.returncode, command)


def python(output: Path) -> None:
    """Builds the two distributions, each wheel from its source distribution."""
    for project in (ROOT / "clients/python", ROOT):
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(project), folder=ROOT)
    for archive in output.glob("*.tar.gz"):
        redate(archive)


def redate(archive: Path) -> None:
    """Gives the files of an archive one date, owner and order: the same files make the same archive."""
    date = int(datetime.fromisoformat(build_time()).timestamp())
    with tarfile.open(archive) as old:
        contents = [(member, old.extractfile(member)) for member in old.getmembers() if member.isfile()]
        files = {member.name: (member.mode, stream.read()) for member, stream in contents if stream is not None}
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=date) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for name, (mode, content) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), mode & 0o755, date
            new.addfile(member, io.BytesIO(content))


def java(output: Path) -> None:
    """Builds the Maven artefacts, and adds the POM that goes with them."""
    client = ROOT / "clients/java"
    date = f"-Dproject.build.outputTimestamp={build_time()}"
    run("mvn", "--batch-mode", "--no-transfer-progress", "-DskipTests", date, "clean", "package", folder=client)
    name = f"abstractllm-client-{version()}"
    for kind in ("", "-sources", "-javadoc"):
        shutil.copy(client / "target" / f"{name}{kind}.jar", output)
    shutil.copy(client / "pom.xml", output / f"{name}.pom")


def tracked(folder: Path) -> list[str]:
    """Lists the files of a folder that git tracks, relative to it."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return names.rstrip("\0").split("\0")


def node(output: Path) -> None:
    """Builds the npm tarball in a temporary folder, as tests may use the build in the client's."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in tracked(ROOT / "clients/node"):
            (Path(temporary) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "clients/node" / name, Path(temporary) / name)
        run("npm", "ci", folder=Path(temporary))
        run("npm", "pack", "--pack-destination", str(output), folder=Path(temporary))


def go(output: Path) -> None:
    """Writes the files with which a proxy serves the module.

    See https://go.dev/ref/mod#goproxy-protocol and https://go.dev/ref/mod#zip-files.
    """
    client, tag = ROOT / "clients/go", f"v{version()}"
    versions = output / GO_MODULE / "@v"
    versions.mkdir(parents=True)
    with zipfile.ZipFile(versions / f"{tag}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in tracked(client):
            # One date for all: the same files make the same archive.
            entry = zipfile.ZipInfo(f"{GO_MODULE}@{tag}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, (client / name).read_bytes())
    shutil.copy(client / "go.mod", versions / f"{tag}.mod")
    (versions / f"{tag}.info").write_text(json.dumps({"Version": tag, "Time": build_time()}), "utf-8")
    (versions / "list").write_text(f"{tag}\n", "utf-8")


def helm(output: Path) -> None:
    """Packs the Helm chart, dated as the others are: Helm itself dates its files with the moment of packing."""
    run(sys.executable, "-m", "tools.charts", "--package", str(output), folder=ROOT)
    for archive in output.glob("*.tgz"):
        redate(archive)


LANGUAGES: dict[str, Callable[[Path], None]] = {"python": python, "java": java, "node": node, "go": go, "helm": helm}


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Build the packages that are published.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where they are put; emptied first")
    parser.add_argument("languages", nargs="*", default=[*LANGUAGES], help=f"of {', '.join(LANGUAGES)}; all if absent")
    arguments = parser.parse_args()
    if unknown := set(arguments.languages) - set(LANGUAGES):
        parser.error(f"no such language: {', '.join(sorted(unknown))}")
    for language in arguments.languages:
        folder = arguments.output.resolve() / language
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        LANGUAGES[language](folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            print(f"{path.stat().st_size:>10,}  {path.relative_to(arguments.output.resolve())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
