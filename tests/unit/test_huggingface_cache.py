"""The local model cache: listing, clearing, and names that lead nowhere else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from abstractllm.errors import ModelInUseError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceProvider, cache
from abstractllm.types import ClearedModels


def add_model(root: Path, name: str, size: int = 1000, revisions: int = 1) -> Path:
    """Writes what a download of the hub's own library leaves: blobs, and links to them."""
    folder = root / f"models--{name.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "blobs" / "weights").write_bytes(b"w" * size)
    for number in range(revisions):
        snapshot = folder / "snapshots" / f"{number:040x}"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
        (snapshot / "config.json").write_text("{}", "ascii")
        (folder / "refs" / ("main" if number == 0 else f"v{number}")).write_text(snapshot.name, "ascii")
    (root / ".locks" / folder.name).mkdir(parents=True)
    return folder


def names(root: Path) -> list[str]:
    return [str(model["name"]) for model in HuggingFaceProvider.list_cached_models(str(root))]


def test_missing_cache_is_an_empty_list(tmp_path: Path) -> None:
    assert HuggingFaceProvider.list_cached_models(str(tmp_path / "absent")) == []
    assert HuggingFaceProvider.clear_model_cache(cache_dir=str(tmp_path / "absent")) == ClearedModels((), 0)
    assert not (tmp_path / "absent").exists()


def test_models_are_listed_with_size_revisions_and_times(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "org/big-one", size=5000, revisions=2)
    add_model(tmp_path, "gpt2")
    os.utime(folder / "blobs" / "weights", (2_000_000_000, 1_900_000_000))
    (tmp_path / "datasets--org--data").mkdir()
    (tmp_path / "unrelated").mkdir()
    gpt2, big = HuggingFaceProvider.list_cached_models(str(tmp_path))
    assert (gpt2["name"], big["name"]) == ("gpt2", "org/big-one")
    assert 5000 <= big["size"] < 5200  # the blob once, and the small refs
    assert (big["last_used"], big["last_modified"]) == (2_000_000_000, 1_900_000_000)
    assert big["revisions"] == (f"{0:040x}", f"{1:040x}")
    assert (big["partial"], big["used_by"]) == (False, ())


def test_listing_agrees_with_the_hubs_own_library(tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    for name in ("org/one", "two", "org/with--dashes"):
        add_model(tmp_path, name)
    theirs = {repo.repo_id: repo.repo_path for repo in scan_cache_dir(tmp_path).repos}
    ours = cache._folders(tmp_path)
    assert set(ours.values()) == set(theirs.values())
    assert {"org/one", "two"} <= set(ours) & set(theirs)


def test_unfinished_download_is_partial(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "org/model")
    (folder / f"{0:040x}.incomplete").touch()
    (tmp_path / "models--org--empty" / "blobs").mkdir(parents=True)
    broken = add_model(tmp_path, "org/broken")
    (broken / "blobs" / "weights").unlink()
    assert [model["partial"] for model in HuggingFaceProvider.list_cached_models(str(tmp_path))] == [True] * 3


def test_one_model_is_cleared_and_the_others_stay(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one", size=3000)
    add_model(tmp_path, "org/two")
    result = HuggingFaceProvider.clear_model_cache("org/one", cache_dir=str(tmp_path))
    assert result.removed == ("org/one",)
    assert result.freed_bytes >= 3000
    assert names(tmp_path) == ["org/two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "models--org--two"]
    assert not (tmp_path / ".locks" / "models--org--one").exists()


def test_all_models_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one")
    add_model(tmp_path, "two")
    (tmp_path / "notes.txt").write_text("keep", "utf-8")
    assert HuggingFaceProvider.clear_model_cache(cache_dir=str(tmp_path)).removed == ("org/one", "two")
    assert names(tmp_path) == []
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../victim", "org/../../victim", "/etc", "models--org--one", "org/absent", "org\x00one", "org/*"],
)
def test_name_that_is_not_listed_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "cache"
    add_model(root, "org/one")
    add_model(tmp_path, "victim")
    with pytest.raises(ModelNotFoundError) as failure:
        HuggingFaceProvider.clear_model_cache(name, cache_dir=str(root))
    assert failure.value.field == "model"
    assert names(root) == ["org/one"]
    assert names(tmp_path) == ["victim"]


def test_links_out_of_the_cache_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "cache", tmp_path / "outside"
    folder = add_model(root, "org/one")
    victim = add_model(outside, "org/victim")
    (root / "models--org--linked").symlink_to(victim)
    (folder / "snapshots" / "linked").symlink_to(victim, target_is_directory=True)
    (root / ".removed-linked").symlink_to(victim)
    assert names(root) == ["org/one"]
    with pytest.raises(ModelNotFoundError):
        HuggingFaceProvider.clear_model_cache("org/linked", cache_dir=str(root))
    HuggingFaceProvider.clear_model_cache(cache_dir=str(root))
    assert (victim / "blobs" / "weights").exists()
    assert (root / "models--org--linked").is_symlink()


def test_interrupted_deletion_leaves_a_model_whole_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*arguments: object, **options: object) -> None:
        raise Killed

    add_model(tmp_path, "org/one")
    with monkeypatch.context() as patch:
        patch.setattr(cache.shutil, "rmtree", die)
        with pytest.raises(Killed):
            HuggingFaceProvider.clear_model_cache("org/one", cache_dir=str(tmp_path))
    assert any(path.name.startswith(".removed-") for path in tmp_path.iterdir())
    assert names(tmp_path) == []
    assert not any(path.name.startswith(".removed-") for path in tmp_path.iterdir())


def test_dry_run_deletes_nothing(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one", size=3000)
    llm = HuggingFaceProvider({"cache_dir": str(tmp_path)})
    removed, freed = asyncio.run(llm.clear_cache("org/one", dry_run=True))
    assert (removed, freed >= 3000) == (["org/one"], True)
    assert [model.name for model in asyncio.run(llm.cached_models())] == ["org/one"]
    assert asyncio.run(llm.clear_cache(None))[0] == ["org/one"]
    assert asyncio.run(llm.cached_models()) == []


def test_model_in_use_is_not_deleted(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one")
    add_model(tmp_path, "org/two")
    used_by = {"org/one": ["local"]}
    assert [model.used_by for model in cache.list_models(str(tmp_path), used_by)] == [("local",), ()]
    for target in ("org/one", None):
        with pytest.raises(ModelInUseError, match="local"):
            cache.clear(str(tmp_path), target, used_by=used_by)
    assert names(tmp_path) == ["org/one", "org/two"]
    assert cache.clear(str(tmp_path), "org/two", used_by=used_by)[0] == ["org/two"]
