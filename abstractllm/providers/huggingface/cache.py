"""The cache of models from the hub: listing and clearing. The layout inside is the hub's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from abstractllm.errors import ModelInUseError, ModelNotFoundError
from abstractllm.types import CachedModel

__all__ = ["clear", "list_models"]

_PREFIX = "models--"
_REMOVED = ".removed-"
"""A model to be deleted is renamed to this and a random name first: whenever a kill comes, it is whole or gone."""


def list_models(directory: str, used_by: Mapping[str, Sequence[str]] | None = None) -> list[CachedModel]:
    """The models in a cache, sorted by name; empty if there is no cache.

    A model is counted once however many of its revisions share a file. Links out of the cache are not followed.

    Args:
        directory: The cache's root.
        used_by: For each model in use, what uses it.
    """
    return [_describe(name, path, used_by or {}) for name, path in sorted(_folders(Path(directory)).items())]


def clear(
    directory: str,
    model: str | None,
    *,
    used_by: Mapping[str, Sequence[str]] | None = None,
    dry_run: bool = False,
) -> tuple[list[str], int]:
    """Deletes one model, or all of them if `model` is None, and what an interrupted deletion left.

    Args:
        directory: The cache's root.
        model: A name that `list_models` gives.
        used_by: For each model in use, what uses it.
        dry_run: Only say what would be deleted.

    Returns:
        The names of what was (or would be) deleted, and the bytes that it frees.

    Raises:
        ModelNotFoundError: If the cache holds no model of this name.
        ModelInUseError: If one of them is in use; nothing is deleted then.
    """
    root = Path(directory)
    models = {found.name: found for found in list_models(directory, used_by)}
    if model is not None and model not in models:
        raise ModelNotFoundError(
            f"model: the cache {directory} holds no model {model[:200]!r}", field="model", requested=model[:200]
        )
    chosen = [models[model]] if model is not None else list(models.values())
    for found in chosen:
        if found.used_by:
            raise ModelInUseError(f"model {found.name} is used by {', '.join(found.used_by)}", field="model")
    if not dry_run:
        folders = _folders(root)
        for found in chosen:
            path = folders[found.name]
            path.rename(root / f"{_REMOVED}{uuid.uuid4().hex}")
            shutil.rmtree(root / ".locks" / path.name, ignore_errors=True)
        _sweep(root)
    return [found.name for found in chosen], sum(found.size_bytes for found in chosen)


def _folders(root: Path) -> dict[str, Path]:
    """The models' folders by name; links are none."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {
        name.removeprefix(_PREFIX).replace("--", "/", 1): root / name
        for name in names
        if name.startswith(_PREFIX) and name != _PREFIX
    }


def _describe(name: str, path: Path, used_by: Mapping[str, Sequence[str]]) -> CachedModel:
    """Reads a model's folder: `blobs`, and `snapshots` whose files are links to them (or files, if links cannot be)."""
    size = 0
    used: float | None = None
    modified: float | None = None
    partial = False
    for folder, _, files in os.walk(path):  # follows no links
        for file in files:
            with contextlib.suppress(OSError):  # deleted meanwhile, or a broken link
                place = Path(folder, file)
                if place.is_symlink():
                    partial = partial or not place.exists()
                    continue
                status = place.stat()
                size += status.st_size
                partial = partial or file.endswith(".incomplete")
                if Path(folder).relative_to(path).parts[:1] in (("blobs",), ("snapshots",)):
                    used = max(used or 0.0, status.st_atime)
                    modified = max(modified or 0.0, status.st_mtime)
    try:
        revisions = sorted(entry.name for entry in (path / "snapshots").iterdir() if entry.is_dir())
    except OSError:
        revisions = []
    return CachedModel(
        name=name,
        revisions=tuple(revisions),
        size_bytes=size,
        last_used_time=used,
        last_modified_time=modified,
        used_by=tuple(used_by.get(name, ())),
        partial=partial or not revisions,
    )


def _sweep(root: Path) -> None:
    """Deletes what was renamed aside, now or before a kill."""
    with contextlib.suppress(FileNotFoundError):
        for path in root.glob(f"{_REMOVED}*"):
            if not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
