"""The local model cache: listing, clearing, and names that lead nowhere else."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from abstractllm.errors import ConfigurationError, ModelInUseError, ModelNotFoundError
from abstractllm.providers.huggingface import HuggingFaceProvider
from abstractllm.providers.huggingface.hub import cache, locks
from abstractllm.providers.huggingface.hub.model_cache import clear_models
from abstractllm.types import CachedModel, ClearedModels


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


NAMES = """. .. / // ./ ../ ../.. ../victim ../models--org--victim ../outside/models--org--victim org/../../victim
org/../one org/./one org//one org/one/ /org/one /etc /etc/passwd ~ ~root $HOME models--org--one
./models--org--one --org--one org--one org--one/.. org/absent org/* org/? org/[o]ne {org/one} ORG/ONE
org\\one ..\\victim C:\\ file:///etc .locks .removed-x datasets--org--data blobs %2e%2e%2fvictim org%2fone""".split()


@pytest.mark.parametrize("name", ["", " ", "org/one ", "org\x00one", "org/one\n", "\udcff", "x" * 5000, *NAMES])
def test_name_that_is_not_listed_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "cache"
    add_model(root, "org/one")
    add_model(tmp_path, "victim")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelNotFoundError) as failure:
        clear_models(str(root), name)
    assert failure.value.field == "model"
    assert HuggingFaceProvider.clear_model_cache(name, cache_dir=str(root)) == ClearedModels((), 0)
    assert sorted(tmp_path.rglob("*")) == before
    assert names(root) == ["org/one"]


def test_links_out_of_the_cache_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "cache", tmp_path / "outside"
    folder = add_model(root, "org/one")
    victim = add_model(outside, "org/victim")
    (root / "models--org--linked").symlink_to(victim)
    (folder / "snapshots" / "linked").symlink_to(victim, target_is_directory=True)
    (root / ".removed-linked").symlink_to(victim)
    assert names(root) == ["org/one"]
    with pytest.raises(ModelNotFoundError):
        clear_models(str(root), "org/linked")
    assert HuggingFaceProvider.clear_model_cache("org/linked", cache_dir=str(root)) == ClearedModels((), 0)
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


def test_a_model_that_somebody_else_deletes_meanwhile_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("org/one", "org/two"):
        add_model(tmp_path, name)
    measure = cache._freed

    def measure_and_lose(root: Path, paths: Any) -> int:
        freed = measure(root, paths)
        shutil.rmtree(tmp_path / "models--org--one")
        return freed

    monkeypatch.setattr(cache, "_freed", measure_and_lose)
    assert cache.clear(str(tmp_path), None)[0] == ["org/two"]
    assert names(tmp_path) == []


def share(root: Path, model: str, digest: str, size: int) -> None:
    """Turns a model's weights into a file that models share, as the hub's library does with its storage `xet`."""
    store = root / "blobs" / digest[:2]
    store.mkdir(parents=True, exist_ok=True)
    (root / "blobs" / ".huggingface-shared-blobs").write_text("1\n", "ascii")
    (store / digest).write_bytes(b"w" * size)
    weights = root / f"models--{model.replace('/', '--')}" / "blobs" / "weights"
    weights.unlink()
    weights.symlink_to(f"../../blobs/{digest[:2]}/{digest}")
    with (store / f"{digest}.refs").open("a") as references:
        references.write(f"{weights.relative_to(root)}\n")


def test_files_that_models_share_are_counted_and_deleted_with_the_last_one(tmp_path: Path) -> None:
    for name in ("org/one", "org/two", "org/three"):
        add_model(tmp_path, name)
        share(tmp_path, name, ("a" if name != "org/three" else "b") * 64, 100_000)
    sizes = {model["name"]: (model["size"] // 1000, model["partial"]) for model in cached(tmp_path)}
    assert sizes == dict.fromkeys(("org/one", "org/two", "org/three"), (100, False))
    first = HuggingFaceProvider.clear_model_cache("org/one", cache_dir=str(tmp_path))
    assert first.freed_bytes < 1000
    assert [model["partial"] for model in cached(tmp_path)] == [False, False]
    second = HuggingFaceProvider.clear_model_cache("org/two", cache_dir=str(tmp_path))
    assert 100_000 <= second.freed_bytes < 101_000
    assert not (tmp_path / "blobs" / "aa" / ("a" * 64)).exists()
    assert (tmp_path / "blobs" / "bb" / ("b" * 64)).exists()
    assert [model["partial"] for model in cached(tmp_path)] == [False]


def test_clearing_all_frees_what_its_dry_run_says(tmp_path: Path) -> None:
    for name in ("org/one", "org/two"):
        add_model(tmp_path, name, size=10_000)
        share(tmp_path, name, "a" * 64, 100_000)
    add_model(tmp_path, "org/three", size=5000)
    announced = cache.clear(str(tmp_path), None, dry_run=True)
    before = sum(path.lstat().st_size for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    assert cache.clear(str(tmp_path), None) == announced
    left = sum(path.lstat().st_size for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    references = len("models--org--one/blobs/weights\nmodels--org--two/blobs/weights\n")
    assert before - left == announced[1] + references


def test_a_file_that_the_library_is_about_to_link_to_stays(tmp_path: Path) -> None:
    import filelock

    for name in ("org/one", "org/two"):
        add_model(tmp_path, name)
    share(tmp_path, "org/one", "a" * 64, 1000)
    path = tmp_path / "blobs" / "aa" / ("a" * 64)
    with filelock.FileLock(f"{path}.lock"):
        cache.clear(str(tmp_path), "org/one")
        assert path.exists()
    cache.clear(str(tmp_path), "org/two")
    assert not path.exists()


def test_a_folder_of_blobs_that_is_not_the_librarys_is_left_alone(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one")
    (tmp_path / "blobs" / "aa").mkdir(parents=True)
    (tmp_path / "blobs" / "aa" / ("a" * 64)).write_bytes(b"mine")
    cache.clear(str(tmp_path), None)
    assert (tmp_path / "blobs" / "aa" / ("a" * 64)).exists()


def test_hard_links_count_once_and_free_nothing_while_another_name_is_left(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    folder = add_model(root, "org/one", size=50_000)
    (folder / "snapshots" / f"{0:040x}" / "again.safetensors").hardlink_to(folder / "blobs" / "weights")
    (model,) = cached(root)
    assert 50_000 <= model["size"] < 51_000
    (tmp_path / "kept").hardlink_to(folder / "blobs" / "weights")
    assert cache.clear(str(root), "org/one", dry_run=True)[1] < 1000
    (tmp_path / "kept").unlink()
    assert 50_000 <= cache.clear(str(root), "org/one")[1] < 51_000


def cached(root: Path) -> list[CachedModel]:
    return HuggingFaceProvider.list_cached_models(str(root))


def test_what_is_not_a_models_folder_is_no_model(tmp_path: Path) -> None:
    for name in ("models--", "models--a b", "models--a--b--c\n", "datasets--org--data", "model--x", "spaces--a--b"):
        (tmp_path / name).mkdir()
    (tmp_path / "models--org--file").write_text("no folder")
    assert names(tmp_path) == []


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "model-2.safetensors", "index"])
def test_a_snapshot_that_lacks_a_file_is_partial(tmp_path: Path, missing: str) -> None:
    folder = add_model(tmp_path, "org/one") / "snapshots" / f"{0:040x}"
    if missing in ("model-2.safetensors", "index"):
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        (folder / "model-2.safetensors").write_bytes(b"w")
        index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
        (folder / "model.safetensors.index.json").write_text("no JSON" if missing == "index" else index)
    assert [model["partial"] for model in cached(tmp_path)] == [missing == "index"]
    if missing != "index":
        (folder / missing).unlink()
        assert [model["partial"] for model in cached(tmp_path)] == [True]


def test_a_link_out_of_the_cache_makes_a_model_partial(tmp_path: Path) -> None:
    outside = tmp_path / "weights"
    outside.write_bytes(b"w" * 10_000)
    folder = add_model(tmp_path / "cache", "org/one")
    (folder / "blobs" / "weights").unlink()
    (folder / "blobs" / "weights").symlink_to(outside)
    (model,) = cached(tmp_path / "cache")
    assert (model["partial"], model["size"] < 1000) == (True, True)
    cache.clear(str(tmp_path / "cache"), None)
    assert outside.read_bytes() == b"w" * 10_000


def test_locks_of_models_that_are_gone_are_swept(tmp_path: Path) -> None:
    add_model(tmp_path, "org/one")
    (tmp_path / ".locks" / "models--org--gone").mkdir()
    (tmp_path / ".locks" / "models--org--gone" / "etag.lock").touch()
    (tmp_path / ".locks" / "models--org--gone.use").touch()
    (tmp_path / ".locks" / "datasets--org--data").mkdir()
    assert names(tmp_path) == ["org/one"]
    left = sorted(path.name for path in (tmp_path / ".locks").iterdir())
    assert left == ["datasets--org--data", "models--org--one"]


def test_a_lock_keeps_its_model_and_ends_with_its_holder(tmp_path: Path) -> None:
    folder = add_model(tmp_path, "org/one")
    with locks.shared_lock(tmp_path, folder.name), locks.shared_lock(tmp_path, folder.name):
        for dry_run in (True, False):
            with pytest.raises(ModelInUseError):
                cache.clear(str(tmp_path), None, dry_run=dry_run)
    assert cache.clear(str(tmp_path), None)[0] == ["org/one"]


def test_a_cache_that_may_not_be_written_to_is_listed_and_not_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    add_model(tmp_path, "org/one")
    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "open", refuse)
        assert names(tmp_path) == ["org/one"]
        with locks.shared_lock(tmp_path, "models--org--one"):  # an engine that only reads
            pass
        with pytest.raises(ConfigurationError, match="may not be written to: Read-only file system"):
            cache.clear(str(tmp_path), "org/one")
    assert names(tmp_path) == ["org/one"]
