"""The users who may read or write a file."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["is_readable_by_all", "is_writable_by_others"]


def is_writable_by_others(path: Path) -> bool:
    """Returns whether other users than a file's owner may write the file, or put another in its place."""
    try:
        folder = path.resolve().parent.stat().st_mode
        return bool(path.stat().st_mode & 0o022 or (folder & stat.S_IWOTH and not folder & stat.S_ISVTX))
    except OSError:
        return False


def is_readable_by_all(path: Path) -> bool:
    """Returns whether every user of the machine may read a file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
