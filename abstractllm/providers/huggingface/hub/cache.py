"""The listing and clearing of the cache of models from the hub; its layout inside is the hub's."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from abstractllm.errors import ConfigurationError, ModelInUseError, ModelNotFoundError
from abstractllm.providers.huggingface.hub import shared_blobs
from abstractllm.providers.huggingface.hub.layout import is_whole, markers, model_name, resolved
from abstractllm.providers.huggingface.hub.locks import LOCKS, InUseError, exclusive_lock, lock_path
from abstractllm.types import CachedModel

__all__ = ["cache_size", "clear", "list_models", "sweep"]

_REMOVED_PREFIX = ".removed-"
"""The beginning of the name that a model is given before it is deleted: whenever a kill comes, it is whole or gone."""


def list_models(directory: str, used_by: Mapping[str, Sequence[str]] | None = None) -> list[CachedModel]:
    """Returns the models in a cache, sorted by name; an empty list if there is no cache.

    A file is counted once however many of a model's revisions share it. Links out of the cache are not followed. What
    an interrupted deletion left behind is deleted.

    Args:
        directory: The cache's root.
        used_by: The names of the users of each model in use.
    """
    root = Path(directory)
    sweep(root)
    return [_describe(name, root, path, used_by or {}) for name, path in sorted(_folders(root).items())]


def cache_size(directory: str) -> int:
    """Returns the bytes of the files in a cache, each counted once; nothing is changed, and links are not followed."""
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it was deleted meanwhile
                status = Path(folder, name).lstat()
                if stat.S_ISREG(status.st_mode):
                    sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def clear(
    directory: str,
    model: str | None,
    *,
    used_by: Mapping[str, Sequence[str]] | None = None,
    dry_run: bool = False,
) -> tuple[list[str], int]:
    """Deletes one model, or all of them if `model` is None, and what an interrupted deletion left behind.

    Args:
        directory: The cache's root.
        model: A name that `list_models` gives.
        used_by: The names of the users of each model in use.
        dry_run: Delete nothing.

    Returns:
        The names of what was (or would be) deleted, and the bytes that it frees: not those of files that others share.

    Raises:
        ModelNotFoundError: If the cache holds no model of this name.
        ModelInUseError: If one of them is in use, or being downloaded, by any process; nothing is deleted then.
        ConfigurationError: If the cache may not be written to.
    """
    root = Path(directory)
    chosen = _chosen(root, model, used_by or {})
    try:
        with _locked(root, chosen, dry_run):
            # Another call may have deleted some of them before all locks were taken.
            chosen = {name: path for name, path in sorted(chosen.items()) if path.is_dir()}
            freed = _freed(root, chosen.values())
            if not dry_run:
                for name, path in tuple(chosen.items()):
                    try:
                        path.rename(root / f"{_REMOVED_PREFIX}{uuid.uuid4().hex}")
                    except FileNotFoundError:  # somebody who takes no locks has deleted it
                        del chosen[name]
                        continue
                    shutil.rmtree(root / LOCKS / path.name, ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise ConfigurationError(
            f"cache_dir: {directory} may not be written to: {error.strerror}", field="cache_dir"
        ) from error
    if not dry_run:
        sweep(root)
        shared_blobs.collect(root)
        with contextlib.suppress(OSError):
            (root / LOCKS).rmdir()  # if nobody has a lock
    return list(chosen), freed


def _chosen(root: Path, model: str | None, used_by: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Returns the folders of one model or of all, by name; raises if there is no such model, or one has a user."""
    folders = _folders(root)
    if model is not None and model not in folders:
        raise ModelNotFoundError(
            f"model: the cache {root} holds no model {model[:200]!r}", field="model", requested=model[:200]
        )
    chosen = folders if model is None else {model: folders[model]}
    for name in sorted(chosen):
        if users := used_by.get(name):
            raise ModelInUseError(f"model {name} is used by {', '.join(users)}", field="model")
    return chosen


@contextlib.contextmanager
def _locked(root: Path, folders: Mapping[str, Path], dry_run: bool) -> Iterator[None]:
    """Keeps all other processes from the models; raises if one of them uses a model."""
    with ExitStack() as locks:
        for name, path in sorted(folders.items()):
            if dry_run and not lock_path(root, path.name).exists():
                continue  # nobody uses it, and nothing is written
            try:
                locks.enter_context(exclusive_lock(root, path.name))
            except InUseError:
                raise ModelInUseError(
                    f"model {name} is being downloaded, or another process uses it", field="model"
                ) from None
        yield


def sweep(root: Path) -> None:
    """Deletes the models that were renamed for it, now or before a kill, and the locks of models that are gone."""
    try:
        names = [entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if re.fullmatch(rf"{re.escape(_REMOVED_PREFIX)}[0-9a-f]{{32}}", name):
            shutil.rmtree(root / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        for lock in list(os.scandir(root / LOCKS)):
            folder = lock.name.removesuffix(".use")
            if model_name(folder) is not None and folder not in names:
                # A process that is about to download the model has its lock already.
                with contextlib.suppress(InUseError), exclusive_lock(root, folder):
                    if not (root / folder).exists():
                        shutil.rmtree(root / LOCKS / folder, ignore_errors=True)


def _folders(root: Path) -> dict[str, Path]:
    """Returns the models' folders by name; links do not count."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {model: root / name for name in names if (model := model_name(name)) is not None}


def _describe(name: str, root: Path, path: Path, used_by: Mapping[str, Sequence[str]]) -> CachedModel:
    sizes: dict[tuple[int, int], int] = {}
    used: float | None = None
    modified: float | None = None
    for file, status in _regular_files(root, path):
        sizes[status.st_dev, status.st_ino] = status.st_size
        if file.relative_to(path).parts[0] in ("blobs", "snapshots"):
            used = max(used or 0.0, status.st_atime)
            modified = max(modified or 0.0, status.st_mtime)
    try:
        snapshots = [Path(entry) for entry in os.scandir(path / "snapshots") if entry.is_dir(follow_symlinks=False)]
    except OSError:
        snapshots = []
    return CachedModel(
        name=name,
        revisions=tuple(sorted(snapshot.name for snapshot in snapshots)),
        size_bytes=sum(sizes.values()),
        last_used_time=used,
        last_modified_time=modified,
        used_by=tuple(used_by.get(name, ())),
        partial=not snapshots or bool(markers(path)) or not all(is_whole(root, snapshot) for snapshot in snapshots),
    )


def _regular_files(root: Path, path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields a model's files, those that it shares with other models included."""
    for folder, _, files in os.walk(path):  # follows no links
        for file in files:
            with contextlib.suppress(OSError):  # deleted meanwhile, or a link to nothing
                file_path = Path(folder, file)
                if not file_path.is_symlink():
                    yield file_path, file_path.stat()
                elif (target := resolved(root, file_path)) is not None and shared_blobs.is_shared(root, target):
                    yield file_path, target.stat()


def _freed(root: Path, folders: Iterable[Path]) -> int:
    """Returns the bytes that deleting models frees: a file counts if all its names are deleted."""
    deleted = list(folders)
    names: dict[tuple[int, int], set[Path]] = {}
    statuses: dict[tuple[int, int], os.stat_result] = {}
    for path in deleted:
        for file, status in _regular_files(root, path):
            names.setdefault((status.st_dev, status.st_ino), set()).add(Path(os.path.realpath(file)))
            statuses[status.st_dev, status.st_ino] = status
    kept = shared_blobs.referenced(root, without=deleted)
    return sum(
        status.st_size
        for key, status in statuses.items()
        if status.st_nlink <= len(names[key]) and not names[key] & kept
    )
