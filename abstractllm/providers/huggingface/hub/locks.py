"""Locks on cached models, held by processes: those that use a model share one, and nobody deletes it meanwhile.

They are `flock`s, so one ends with its process, however that ends. A lock's file may be deleted by the process that has
the lock alone; a process that waited for it then tries again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LOCKS", "InUseError", "exclusive_lock", "lock_path", "shared_lock"]

LOCKS = ".locks"
"""The hub's folder for locks: a folder for each model, and beside it our file for each model."""
_SUFFIX = ".use"
_UNSUPPORTED = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class InUseError(Exception):
    """A process uses the model."""


@contextmanager
def shared_lock(root: Path, folder: str) -> Iterator[None]:
    """Keeps a model from being deleted.

    Where there can be no lock (a cache that is read-only, a file system without locks) it does nothing.

    Args:
        root: The cache's root; made if absent.
        folder: The name of the model's folder.
    """
    try:
        descriptor = _lock(lock_path(root, folder), fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, *_UNSUPPORTED):
            raise
        yield
        return
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(root: Path, folder: str) -> Iterator[None]:
    """Keeps all others from a model that is to be deleted, and deletes the lock's file in the end.

    Raises:
        InUseError: If a process uses the model.
        OSError: If the cache cannot be written to.
    """
    path = lock_path(root, folder)
    try:
        descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def lock_path(root: Path, folder: str) -> Path:
    """Returns the path of a model's lock."""
    return root / LOCKS / f"{folder}{_SUFFIX}"


def _lock(path: Path, operation: int) -> int:
    """Returns an open descriptor that has the lock."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o664)
        except FileNotFoundError:  # the folder was swept away in between
            continue
        try:
            fcntl.flock(descriptor, operation)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
