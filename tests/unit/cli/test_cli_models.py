"""`abstractllm models` on this machine's cache."""

import json
from pathlib import Path

import pytest

from tests.unit.cli.support import Terminal, run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with two models, as the hub's own library lays them out."""
    for name, content in (("models--org--small", b"x" * 1000), ("models--org--large", b"x" * 2_000_000)):
        snapshot = tmp_path / name / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (tmp_path / name / "blobs").mkdir()
        (tmp_path / name / "blobs" / "1").write_bytes(content)
        (snapshot / "config.json").symlink_to("../../blobs/1")
    return tmp_path


def test_cached_models_are_listed(cache: Path) -> None:
    rows = [line.split("\t") for line in run("models", "list", "--cache-dir", str(cache)).stdout.splitlines()]
    assert [row[:2] for row in rows] == [["org/large", "1.9 MiB"], ["org/small", "1000 B"]]
    models = json.loads(run("models", "list", "--cache-dir", str(cache), "--json").stdout)["models"]
    assert [(model["name"], model["size_bytes"]) for model in models] == [("org/large", 2_000_000), ("org/small", 1000)]


def test_a_dry_run_deletes_nothing(cache: Path) -> None:
    done = run("models", "clear", "--all", "--dry-run", "--cache-dir", str(cache))
    assert (done.returncode, done.stdout) == (0, "org/large\norg/small\n")
    assert done.stderr == "2 models, 1.9 MiB would be deleted\n"
    assert len(list(cache.iterdir())) == 2


def test_one_model_is_deleted(cache: Path) -> None:
    done = run("models", "clear", "org/small", "--yes", "--json", "--cache-dir", str(cache))
    assert json.loads(done.stdout) == {"removed": ["org/small"], "freed_bytes": 1000, "dry_run": False}
    assert [folder.name for folder in cache.iterdir()] == ["models--org--large"]


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, 2), ("y", 0, 0)])
def test_deleting_asks_first(cache: Path, answer: str, code: int, left: int) -> None:
    with Terminal("models", "clear", "--all", "--cache-dir", str(cache)) as terminal:
        terminal.wait_for("Delete 2 models, 1.9 MiB? [y/N]")
        terminal.type(answer + "\n")
        terminal.rest()
        assert terminal.process.returncode == code
    assert len(list(cache.iterdir())) == left


def test_a_model_that_is_not_cached_is_an_error(cache: Path) -> None:
    done = run("models", "clear", "org/other", "--yes", "--cache-dir", str(cache))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: MODEL_NOT_FOUND: ")
