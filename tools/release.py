"""Builds a release and says what it was built from: `make release`, then `python -m tools.release --verify dist`.

    dist/python/ java/ node/ go/ helm/    the packages, as `make packages` builds them
    dist/sbom/                            the bill of materials of each image, in CycloneDX's JSON
    dist/images/                          with --images: the digest of each image that was built
    dist/provenance.json                  a statement of in-toto with SLSA's provenance, version 1
    dist/SHA256SUMS                       the digest of every file, for sha256sum --check

The statement names every file by its digest, the commit, the locks and the base images, the commands and the versions
of the tools. It is not signed: whoever publishes signs it with the key, or the identity, that users know (RELEASE.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.images import sbom, source
from tools.images.variants import ALL, IMAGES, ROOT

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:abstractllm:make-release:v1"
LOCAL_BUILDER = "urn:abstractllm:builder:local"
LANGUAGES = ("python", "java", "node", "go", "helm")
PROVENANCE = "provenance.json"
SUMS = "SHA256SUMS"
TOOLS = {
    "git": ("git", "--version"),
    "go": ("go", "version"),
    "java": ("mvn", "--version"),
    "node": ("npm", "--version"),
    "python": (sys.executable, "--version"),
}


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(*command: str, **variables: str) -> None:
    """Runs a command in the repository's root, with its output on this one's.

    Raises:
        SourceError: If it fails.
    """
    print("$", *command, flush=True)
    try:
        subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise source.SourceError(f"{command[0]}: {error}") from None


def build_packages(output: Path, languages: Sequence[str], revision: source.Revision) -> list[list[str]]:
    """Builds the packages, dated with the commit, and returns the commands."""
    command = [sys.executable, "tools/packages.py", "--output", str(output), *languages]
    run(*command, SOURCE_DATE_EPOCH=str(revision.seconds))
    return [["python", "tools/packages.py", *languages]]


def build_images(output: Path, revision: source.Revision) -> list[list[str]]:
    """Builds the images with Docker, leaves the digest of each in a file, and returns the commands."""
    folder = output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    commands = []
    for image in IMAGES:
        arguments = {
            "VARIANT": image.name,
            "VERSION": revision.version,
            "REVISION": revision.commit,
            "SOURCE_DATE_EPOCH": str(revision.seconds),
        }
        tag = f"abstractllm:{revision.version}" + ("" if image.name == "cpu" else f"-{image.name}")
        words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        command = ["docker", "build", *words, "--tag", tag, "."]
        run(*command[:-1], "--iidfile", str(folder / f"{image.name}.digest"), ".")
        commands.append(command)
    return commands


def remote() -> str:
    """Returns the address of the repository that was cloned, without a user's name; nothing if it has none to name."""
    try:
        address = source.git("config", "--get", "remote.origin.url")
    except source.SourceError:
        return ""
    match = re.fullmatch(r"(https|ssh)://(?:[^@/]*@)?(.+)", address)
    return f"{match[1]}://{match[2]}" if match else ""


def builder() -> tuple[str, str]:
    """Returns the identity of what builds, and of this run of it: GitHub's where it runs this, else this machine."""
    variables = os.environ
    if variables.get("GITHUB_ACTIONS") == "true":
        home = f"{variables['GITHUB_SERVER_URL']}/{variables['GITHUB_REPOSITORY']}"
        workflow = f"{variables['GITHUB_SERVER_URL']}/{variables['GITHUB_WORKFLOW_REF']}"
        return workflow, f"{home}/actions/runs/{variables['GITHUB_RUN_ID']}"
    return LOCAL_BUILDER, ""


def tool_versions() -> dict[str, str]:
    """Returns the first line that each tool of the build says of its version; those alone that are there."""
    versions = {"platform": f"{platform.system()} {platform.machine()}"}
    for name, command in TOOLS.items():
        if shutil.which(command[0]):
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            # Colours that a tool prints are no part of its version.
            versions[name] = re.sub(r"\x1b\[[0-9;]*m", "", lines[0]).strip() if lines else "unknown"
    return versions


def subjects(output: Path) -> list[dict[str, Any]]:
    """Returns the name and digest of each file, and of each image that was built."""
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name not in (PROVENANCE, SUMS))
    named = [
        {"name": path.relative_to(output).as_posix(), "digest": {"sha256": digest(path)}}
        for path in files
        if path.suffix != ".digest"
    ]
    for path in files:
        if path.suffix == ".digest":
            value = path.read_text("utf-8").strip().removeprefix("sha256:")
            named.append({"name": f"image:{path.stem}", "digest": {"sha256": value}})
    return named


def dependencies(revision: source.Revision) -> list[dict[str, Any]]:
    """Returns what the build takes in: the commit, the pins and locks, the base images."""
    address = remote()
    sources = {"name": "source", "digest": {"gitCommit": revision.commit}}
    resolved: list[dict[str, Any]] = [sources | ({"uri": f"git+{address}@{revision.commit}"} if address else {})]
    locks = [variant.lock for variant in ALL]
    others = ("constraints.txt", "clients/go/go.sum", "clients/node/package-lock.json", "clients/java/pom.xml")
    resolved += [
        {"name": path.relative_to(ROOT).as_posix(), "digest": {"sha256": digest(path)}}
        for path in (*locks, *(ROOT / name for name in others))
    ]
    for base in sorted({source.base_image(image.name) for image in IMAGES}):
        name, _, value = base.partition("@")
        entry: dict[str, Any] = {"uri": f"pkg:docker/{name.replace(':', '@')}"}
        resolved.append(entry | ({"digest": {"sha256": value.removeprefix("sha256:")}} if value else {}))
    return resolved


def statement(
    output: Path, revision: source.Revision, commands: list[list[str]], begun: datetime, ended: datetime
) -> dict[str, Any]:
    """Returns what the files of a release were built from, and how."""
    identity, invocation = builder()
    metadata = {"startedOn": moment(begun), "finishedOn": moment(ended)}
    return {
        "_type": STATEMENT,
        "subject": subjects(output),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": revision.version, "commit": revision.commit, "commands": commands},
                "internalParameters": {"SOURCE_DATE_EPOCH": str(revision.seconds), "tools": tool_versions()},
                "resolvedDependencies": dependencies(revision),
            },
            "runDetails": {
                "builder": {"id": identity},
                "metadata": metadata | ({"invocationId": invocation} if invocation else {}),
            },
        },
    }


def moment(time: datetime) -> str:
    """Returns a time in the form that provenance has for it."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def release(output: Path, languages: Sequence[str], with_images: bool) -> None:
    """Builds everything into a folder.

    Raises:
        SourceError: If the checkout is not as it was committed, or something cannot be built.
    """
    if changed := source.changed_files():
        listed = "\n  ".join(changed[:20])
        raise source.SourceError(f"a release is built from a commit; commit or remove these first:\n  {listed}")
    revision = source.revision()
    begun = datetime.now(UTC)
    shutil.rmtree(output, ignore_errors=True)
    commands = build_packages(output, languages, revision)
    sbom.write(output / "sbom", revision)
    commands.append(["python", "-m", "tools.images.sbom"])
    if with_images:
        commands += build_images(output, revision)
    told = statement(output, revision, commands, begun, datetime.now(UTC))
    (output / PROVENANCE).write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    files = sorted(path for path in output.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{digest(path)}  {path.relative_to(output).as_posix()}\n" for path in files]
    (output / SUMS).write_text("".join(lines), "utf-8")
    print(f"{len(told['subject'])} files of {revision.commit[:12]} ({revision.version}) in {output}")


def faults(output: Path) -> list[str]:
    """Returns in what a folder differs from what its provenance says of it."""
    try:
        told = json.loads((output / PROVENANCE).read_text("utf-8"))
        named = {entry["name"]: entry["digest"]["sha256"] for entry in told["subject"]}
        if (told["_type"], told["predicateType"]) != (STATEMENT, PREDICATE):
            return [f"{PROVENANCE} is no provenance of SLSA's version 1"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{PROVENANCE} cannot be read: {type(error).__name__}: {error}"]
    held = {entry["name"]: entry["digest"]["sha256"] for entry in subjects(output)}
    changed = [name for name in sorted(named.keys() & held.keys()) if named[name] != held[name]]
    return (
        [f"{name} is missing" for name in sorted(named.keys() - held.keys())]
        + [f"{name} is not what was built" for name in changed]
        + [f"{name} is not part of the release" for name in sorted(held.keys() - named.keys())]
    )


def main() -> int:
    """Runs the command line.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Build a release, with its bills of materials and its provenance.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where it is put; emptied first")
    parser.add_argument("--images", action="store_true", help="build the images, too; this needs Docker")
    parser.add_argument("--verify", type=Path, metavar="FOLDER", help="only hold a release against its provenance")
    parser.add_argument("languages", nargs="*", default=[*LANGUAGES], help=f"of {', '.join(LANGUAGES)}; all if absent")
    arguments = parser.parse_args()
    if unknown := set(arguments.languages) - set(LANGUAGES):
        parser.error(f"no such language: {', '.join(sorted(unknown))}")
    if arguments.verify is not None:
        told = faults(arguments.verify)
        print("\n".join(told) if told else f"{arguments.verify} is what its provenance says")
        return 1 if told else 0
    try:
        release(arguments.output.resolve(), arguments.languages, arguments.images)
    except (source.SourceError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
