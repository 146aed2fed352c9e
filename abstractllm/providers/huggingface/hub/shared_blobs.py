"""The files that models of one cache share.

With its storage `xet` the hub's library moves a file into `blobs` at the cache's root, and leaves a link to it in the
model's `blobs`; see `HF_HUB_DISABLE_SHARED_BLOBS`. Files that no link leads to any more are deleted here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Collection
from pathlib import Path

__all__ = ["collect", "is_shared", "referenced"]

_STORE = "blobs"
_MARKER = ".huggingface-shared-blobs"
_NAME = re.compile(r"[0-9a-f]{64}")


def is_shared(root: Path, file: Path) -> bool:
    """Returns True if a file, whose path is resolved, is one of those that models share."""
    store = Path(os.path.realpath(root), _STORE)
    return file.parent.parent == store and _NAME.fullmatch(file.name) is not None


def referenced(root: Path, without: Collection[Path] = ()) -> set[Path]:
    """Returns the shared files that a repository in the cache, of whatever kind, links to; their paths are resolved.

    Args:
        root: The cache's root.
        without: Folders of repositories that do not count.
    """
    files: set[Path] = set()
    if not (root / _STORE / _MARKER).is_file():
        return files
    with os.scandir(root) as entries:
        folders = [Path(entry) for entry in entries if "--" in entry.name and entry.is_dir(follow_symlinks=False)]
    for folder in folders:
        if folder not in without:
            with contextlib.suppress(OSError), os.scandir(folder / "blobs") as blobs:
                targets = (Path(os.path.realpath(blob)) for blob in blobs if blob.is_symlink())
                files.update(target for target in targets if is_shared(root, target))
    return files


def collect(root: Path) -> None:
    """Deletes the shared files that no repository links to."""
    store = root / _STORE
    if not (store / _MARKER).is_file() or store.is_symlink():
        return
    referenced_files = referenced(root)
    for path in store.glob("[0-9a-f][0-9a-f]/*"):
        if (
            _NAME.fullmatch(path.name)
            and not path.is_symlink()
            and Path(os.path.realpath(path)) not in referenced_files
        ):
            with contextlib.suppress(OSError):
                _delete(root, path)


def _delete(root: Path, path: Path) -> None:
    """Deletes a shared file, unless the hub's library, which takes the same lock to link to it, is about to."""
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if Path(os.path.realpath(path)) not in referenced(root):
            path.unlink()
            path.with_name(f"{path.name}.refs").unlink(missing_ok=True)
    finally:
        os.close(descriptor)
