"""The installed packages: the wheels' content, the pins, and that no package index is asked for our own names."""

import http.server
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OURS = {"abstractllm-grpc", "abstractllm-client"}
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the two distributions are built from, so that building leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("abstractllm", "server", "cli", "clients/python"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    return folder


def pip(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs pip, without the configuration of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        cwd=cwd,
        env=kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def wheels(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The file names in each of the two wheels, by distribution."""
    out = tmp_path_factory.mktemp("wheels")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out))
    result = pip("wheel", *options, "./clients/python", ".", cwd=sources)
    assert result.returncode == 0, result.stdout + result.stderr
    return {
        canonicalize_name(path.name.partition("-")[0]): set(zipfile.ZipFile(path).namelist())
        for path in out.glob("*.whl")
    }


def files_below(folder: Path) -> set[str]:
    """The files below a package's folder, named as in a wheel."""
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheels_hold_every_file_of_their_packages_and_nothing_else(wheels: dict[str, set[str]]) -> None:
    packages = {
        "abstractllm-grpc": ["abstractllm", "server/abstractllm_server", "cli/abstractllm_cli"],
        "abstractllm-client": ["clients/python/src/abstractllm_client", "clients/python/gen/abstractllm_api"],
    }
    assert wheels.keys() == packages.keys()
    for distribution, folders in packages.items():
        expected = set().union(*(files_below(ROOT / folder) for folder in folders))
        names = {name for name in wheels[distribution] if ".dist-info/" not in name}
        assert names == expected
        assert {f"{Path(folder).name}/py.typed" for folder in folders} <= names


def test_demo_model_is_shipped_and_small(wheels: dict[str, set[str]]) -> None:
    folder = "abstractllm/providers/huggingface/demo_model/"
    names = {name.removeprefix(folder) for name in wheels["abstractllm-grpc"] if name.startswith(folder)}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert sum((ROOT / folder / name).stat().st_size for name in names) <= 8 * MEGABYTE


@pytest.fixture
def recording_index() -> Iterator[tuple[str, list[str]]]:
    """A package index on the loopback address that has nothing and records what it is asked for."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(canonicalize_name(self.path.strip("/").split("/")[-1]))
            self.send_error(404)

        def log_message(self, *_arguments: object) -> None:
            """Stays silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", requested
        server.shutdown()
        thread.join()


def test_no_index_is_asked_for_our_names(sources: Path, recording_index: tuple[str, list[str]], tmp_path: Path) -> None:
    url, requested = recording_index
    tree = tmp_path / "tree"
    shutil.copytree(sources, tree)
    # Another version than the installed one, so that what is installed satisfies everything but our own names.
    version = importlib.metadata.version("abstractllm-client")
    for path in (tree / "pyproject.toml", tree / "clients/python/pyproject.toml"):
        path.write_text(path.read_text("utf-8").replace(f'{version}"', f'{version}.post1"'), "utf-8")
    options = ("install", "--dry-run", "--no-build-isolation")

    together = pip(*options, "./clients/python", ".[huggingface,server]", cwd=tree, PIP_INDEX_URL=url)
    assert together.returncode == 0, together.stdout + together.stderr
    assert f"Would install abstractllm-client-{version}.post1 abstractllm-grpc-{version}.post1" in together.stdout
    assert not OURS & set(requested)

    alone = pip(*options, ".[huggingface,server]", cwd=tree, PIP_INDEX_URL=url)
    assert alone.returncode != 0
    assert "abstractllm-client" in requested


def pins() -> dict[str, str]:
    """The version that constraints.txt names for each distribution."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
        for line in lines
        if line and not line.startswith("#")
    }


def requirements() -> list[Requirement]:
    """The requirements of the two distributions, Ray aside: it is installed where it is deployed, never for tests."""
    root = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    client = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text("utf-8"))["project"]
    extras = [
        line for extra, lines in root["optional-dependencies"].items() if extra not in {"ray", "all"} for line in lines
    ]
    listed = [Requirement(line) for line in root["dependencies"] + client["dependencies"] + extras]
    return [requirement for requirement in listed if canonicalize_name(requirement.name) not in OURS]


def test_pins_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    bad = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)]
    assert bad == []
    assert not OURS & pins().keys()


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_requirement_has_a_pin_that_satisfies_it(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_tests_run_against_the_pins() -> None:
    installed = {
        canonicalize_name(distribution.name): distribution.version
        for distribution in importlib.metadata.distributions()
    }
    expected = pins()
    assert {name: installed[name] for name in installed.keys() & expected.keys()} == {
        name: expected[name] for name in installed.keys() & expected.keys()
    }


def test_both_distributions_and_the_packages_have_one_version() -> None:
    versions = {importlib.metadata.version(name) for name in OURS}
    assert len(versions) == 1
    server = importlib.metadata.requires("abstractllm-grpc") or []
    assert f'abstractllm-client=={versions.pop()}; extra == "server"' in server


INDEX = re.compile(
    r"pypi\.org/simple|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org|proxy\.golang\.org"
    r"|repo\d*\.maven\.org|--(?:extra-)?index-url|--find-links"
)


def test_nothing_tracked_holds_a_path_of_a_machine_or_the_address_of_an_index() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if listing.returncode != 0 and not os.environ.get("CI"):
        pytest.skip("not a git checkout")
    assert listing.returncode == 0, listing.stderr
    homes = [str(path) + "/" for path in (ROOT, Path.home()) if len(path.parts) > 1]
    leaks = []
    for name in listing.stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path == Path(__file__).resolve():
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        leaks += [f"{name}: {home}" for home in homes if home in text]
        leaks += [f"{name}: {match}" for match in INDEX.findall(text)]
    assert leaks == []
