"""`make bump` changes the version in every place that names it, or none."""

import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tools import bump

ROOT = Path(__file__).resolve().parents[2]
TODAY = date(2030, 1, 2)
NEW = "907.4.11"
# Files that name versions of other things, which may be the same, or those that something was measured with.
OTHERS = {
    "CHANGELOG.md",
    "clients/go/go.sum",
    "clients/node/package-lock.json",
    "constraints.txt",
    "docs/benchmarks.md",
    "docs/benchmarks/results.json",
    "examples/go/go.sum",
    "tests/interop/go.sum",
    "tests/unit/test_bump.py",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that name the version."""
    for name in {place.path for place in bump.PLACES} | {"CHANGELOG.md"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def contents(tree: Path) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text("utf-8") for path in tree.rglob("*") if path.is_file()}


def naming(texts: dict[str, str], version: str) -> list[str]:
    """Return the lines that name a version, without those that name the contract of a release."""
    pattern = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.]*\d)")
    return [
        f"{name}: {line}"
        for name, text in sorted(texts.items())
        if name not in OTHERS
        for line in text.splitlines()
        if pattern.search(line) and "proto/released/" not in line
    ]


def test_the_new_version_stands_wherever_the_old_one_stood(tree: Path) -> None:
    old, before = bump.current_version(tree), contents(tree)
    assert set(bump.bump(tree, NEW, TODAY)) == set(before)
    after = contents(tree)
    assert naming(after, old) == []
    for place in bump.PLACES:
        assert after[place.path].count(place.text.replace("{version}", NEW)) == place.count
    del before["CHANGELOG.md"]
    assert {name: text.replace(NEW, old) for name, text in after.items() if name in before} == before
    assert bump.current_version(tree) == NEW


def test_the_unreleased_entries_of_the_changelog_become_those_of_the_version(tree: Path) -> None:
    entries = (tree / "CHANGELOG.md").read_text("utf-8").partition("## [Unreleased]\n")[2]
    bump.bump(tree, NEW, TODAY)
    changelog = (tree / "CHANGELOG.md").read_text("utf-8")
    assert changelog.partition("## [Unreleased]\n")[2] == f"\n## [{NEW}] - 2030-01-02\n{entries}"


def test_no_tracked_file_names_the_version_beside_the_known_places() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    known = {place.path for place in bump.PLACES}
    texts = {}
    for name in listing.stdout.decode().rstrip("\0").split("\0"):
        if name not in known and (ROOT / name).is_file():
            texts[name] = (ROOT / name).read_bytes().decode("utf-8", errors="replace")
    assert naming(texts, bump.current_version(ROOT)) == []


@pytest.mark.parametrize("place", bump.PLACES, ids=lambda place: f"{place.path} {place.text.strip()}")
def test_a_place_that_is_gone_is_an_error_and_nothing_changes(tree: Path, place: bump.Place) -> None:
    path = tree / place.path
    text = place.text.replace("{version}", bump.current_version(tree))
    path.write_text(path.read_text("utf-8").replace(text, "gone"), "utf-8")
    before = contents(tree)
    with pytest.raises(ValueError, match="names no version" if place is bump.SOURCE else re.escape(place.path)):
        bump.bump(tree, NEW, TODAY)
    assert contents(tree) == before


@pytest.mark.parametrize("version", ["1", "1.2", "1.2.3.4", "v1.2.3", "1.2.3rc1", "01.2.3", "1.2.x", "", "\uff11.2.3"])
def test_a_version_of_another_form_is_refused(tree: Path, version: str) -> None:
    with pytest.raises(ValueError, match="three numbers"):
        bump.bump(tree, version, TODAY)


def test_a_version_that_is_not_higher_is_refused(tree: Path) -> None:
    bump.bump(tree, "2.10.0", TODAY)
    before = contents(tree)
    for version in ("2.10.0", "2.9.9", "1.99.99"):
        with pytest.raises(ValueError, match="not higher"):
            bump.bump(tree, version, TODAY)
    assert contents(tree) == before


def test_the_command_says_why_it_changes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "tools/bump.py", "0.0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "three numbers, X.Y.Z" in done.stderr
