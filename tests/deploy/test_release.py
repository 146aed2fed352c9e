"""A release from a clone: what is built, the bills of materials, the provenance, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.dockerfile import ROOT
from tools import helm, packages
from tools.images import sbom
from tools.images.locks import read
from tools.images.source import Revision, version
from tools.images.variants import IMAGES, OURS, Variant
from tools.release import LANGUAGES, builder, faults, remote

pytestmark = pytest.mark.timeout(400)

VERSION = version()
BUILT = ("go", "helm") if shutil.which("go") else ("go",)
"""Those packages that are built in a moment; Go builds Helm."""
REVISION = Revision("0" * 40, 1_790_000_000, VERSION)
DOCKER = """#!/bin/sh
# Stands in for Docker: notes its arguments, and writes a digest as `docker build --iidfile` does.
echo "$@" >> "$DOCKER_LOG"
while [ $# -gt 0 ]; do
    if [ "$1" = --iidfile ]; then printf 'sha256:%064d' 7 > "$2"; fi
    shift
done
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository, with the changes of the working tree that are tracked."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    git("clone", "--quiet", str(ROOT), str(folder), folder=ROOT)
    changes = git("diff", "--binary", "HEAD", folder=ROOT)
    if changes:
        subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=folder, input=changes, text=True, check=True)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    git("add", "--all", folder=folder)
    git(*identity, "commit", "--quiet", "--allow-empty", "-m", "As it is", folder=folder)
    if helm.binary() is not None:  # built once, for the clone too
        (folder / "build").mkdir()
        (folder / "build/tools").symlink_to(ROOT / "build/tools")
    return folder


def git(*words: str, folder: Path) -> str:
    """Runs git."""
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def release(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m tools.release` in the clone, without the variables of a workflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run(
        [sys.executable, "-m", "tools.release", *words],
        cwd=clone,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the clone, with the Go module and the chart alone of the packages."""
    folder = tmp_path_factory.mktemp("built") / "dist"
    done = release(clone, "--output", str(folder), *BUILT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def with_images(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Another release of the clone, with images, and the arguments of the calls of Docker that it made."""
    folder = tmp_path_factory.mktemp("images")
    program = folder / "bin/docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    variables = {"PATH": f"{program.parent}:{os.environ['PATH']}", "DOCKER_LOG": str(folder / "log")}
    done = release(clone, "--images", "--output", str(folder / "dist"), *BUILT, **variables)
    assert done.returncode == 0, done.stderr
    return folder / "dist", (folder / "log").read_text().splitlines()


def provenance(folder: Path) -> Any:
    """The statement of a release."""
    return json.loads((folder / "provenance.json").read_text("utf-8"))


def test_release_states_what_it_was_built_from(clone: Path, built: Path) -> None:
    told = provenance(built)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert {entry["name"] for entry in told["subject"]} == files - {"provenance.json", "SHA256SUMS"}
    assert {f"sbom/abstractllm-{VERSION}-slim.cdx.json", "go/github.com/abstractllm/abstractllm-go/@v/list"} <= files
    definition = told["predicate"]["buildDefinition"]
    commit = git("rev-parse", "HEAD", folder=clone).strip()
    assert definition["externalParameters"]["commit"] == commit
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": commit}
    names = {entry.get("name") for entry in definition["resolvedDependencies"]}
    assert {"constraints.txt", "deploy/image/locks/cpu.txt"} <= names
    # Nothing says where this was built, and a clone of a folder has no address to name.
    assert str(clone.parent) not in json.dumps(told)
    assert not any(entry.get("uri", "").startswith("git+") for entry in definition["resolvedDependencies"])
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=built, capture_output=True, check=False).returncode == 0
    assert release(clone, "--verify", str(built)).returncode == 0


def test_all_packages_are_released(built: Path) -> None:
    assert set(LANGUAGES) == packages.LANGUAGES.keys()
    if "helm" in BUILT:
        names = {entry["name"] for entry in provenance(built)["subject"]}
        assert f"helm/abstractllm-{VERSION}.tgz" in names
        chart = built / f"helm/abstractllm-{VERSION}.tgz"
        program = helm.binary()
        assert program is not None
        options = ["template", "llm", str(chart), "--set", "auth.insecure=true"]
        assert (
            "kind: Deployment"
            in subprocess.run([str(program), *options], capture_output=True, text=True, check=True).stdout
        )


def test_the_same_commit_makes_the_same_files(built: Path, with_images: tuple[Path, list[str]]) -> None:
    files = [entry for entry in provenance(with_images[0])["subject"] if ":" not in entry["name"]]
    assert files == provenance(built)["subject"]


def test_changed_missing_and_added_files_are_told(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    shutil.copytree(built, folder)
    assert faults(folder) == []
    versions = folder / "go/github.com/abstractllm/abstractllm-go/@v"
    (versions / "list").write_text("v9.9.9\n")
    (versions / f"v{VERSION}.mod").unlink()
    (folder / "more").write_text("")
    assert faults(folder) == [
        f"go/github.com/abstractllm/abstractllm-go/@v/v{VERSION}.mod is missing",
        "go/github.com/abstractllm/abstractllm-go/@v/list is not what was built",
        "more is not part of the release",
    ]
    (folder / "provenance.json").write_text("{}")
    [fault] = faults(folder)
    assert fault.startswith("provenance.json cannot be read")


def test_checkout_with_changes_is_refused(clone: Path, tmp_path: Path) -> None:
    stray = clone / "stray.txt"
    stray.write_text("")
    try:
        done = release(clone, "--output", str(tmp_path / "dist"), "go")
    finally:
        stray.unlink()
    assert done.returncode == 1
    assert done.stderr.startswith("error: a release is built from a commit; commit or remove these first:\n  ?? stray")
    assert not (tmp_path / "dist").exists()


def test_images_are_named_by_their_digests(clone: Path, with_images: tuple[Path, list[str]]) -> None:
    folder, calls = with_images
    told = provenance(folder)
    images = {entry["name"]: entry["digest"]["sha256"] for entry in told["subject"] if ":" in entry["name"]}
    assert images == {f"image:{image.name}": f"{7:064d}" for image in IMAGES}
    assert [re.findall(r"VARIANT=(\w+)", line) for line in calls] == [["slim"], ["cpu"], ["cuda"]]
    assert release(clone, "--verify", str(folder)).returncode == 0


def test_workflow_of_github_is_the_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_WORKFLOW_REF": "owner/name/.github/workflows/release.yml@refs/tags/v1.2.3",
        "GITHUB_RUN_ID": "42",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert builder() == (
        "https://github.example/owner/name/.github/workflows/release.yml@refs/tags/v1.2.3",
        "https://github.example/owner/name/actions/runs/42",
    )
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert builder() == ("urn:abstractllm:builder:local", "")


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("https://user:secret@github.example/owner/name", "https://github.example/owner/name"),
        ("ssh://git@github.example/owner/name.git", "ssh://github.example/owner/name.git"),
        ("/srv/repositories/name", ""),
        ("git@github.example:owner/name.git", ""),
    ],
)
def test_repository_is_named_without_secrets(address: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.images.source.git", lambda *_: address)
    assert remote() == named


@pytest.mark.parametrize("variant", IMAGES, ids=lambda variant: variant.name)
def test_bill_lists_the_lock_and_passes_the_schema(variant: Variant) -> None:
    text = sbom.bill(variant, REVISION)
    assert sbom.check(text) == ""
    assert text == sbom.bill(variant, REVISION)
    told = json.loads(text)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    components = {component["name"]: component for component in told["components"]}
    locked = {entry.name: entry for entry in read(variant)}
    assert components.keys() - {"python", "nvidia/cuda"} == locked.keys() | OURS
    for name, entry in locked.items():
        [reference] = components[name]["externalReferences"]
        assert {f"sha256:{value['content']}" for value in reference["hashes"]} == set(entry.hashes)
        assert components[name]["purl"] == f"pkg:pypi/{name}@{entry.version}"
    licensed = [name for name in locked if "licenses" in components[name]]
    assert len(licensed) > len(locked) * 0.9
    assert components["grpcio"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in told["dependencies"]}
    # All of it is there because something needs it, the extras of a distribution included.
    reached, waiting = set(), [told["metadata"]["component"]["bom-ref"]]
    while waiting:
        reached.add(one := waiting.pop())
        waiting += [need for need in needs[one] if need not in reached]
    assert reached >= {component["bom-ref"] for component in told["components"]}
    server = next(component["bom-ref"] for name, component in components.items() if name == "abstractllm-grpc")
    assert components["grpcio"]["bom-ref"] in needs[server]
    assert components["typing-extensions"]["bom-ref"] in needs[components["grpcio"]["bom-ref"]]


def test_faulty_bill_is_told() -> None:
    told = json.loads(sbom.bill(IMAGES[0], REVISION))
    told["components"][0]["type"] = "nonsense"
    assert "nonsense" in sbom.check(json.dumps(told))
