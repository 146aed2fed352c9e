"""Files that a configuration names, read with a bound and without ever waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["LARGEST_FILE", "read_file"]

LARGEST_FILE = 16 << 20
"""Bytes of the largest file of tokens, certificates or keys that is read."""


def read_file(path: Path, limit: int = LARGEST_FILE) -> bytes:
    """Returns the content of a file.

    Args:
        path: The file; links are followed.
        limit: The bytes that it may have.

    Raises:
        OSError: If it cannot be read or is larger, or is no regular file: a pipe would be waited for, perhaps for ever,
            and a device may have no end.
    """
    # Without O_NONBLOCK the opening of a pipe waits for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise OSError(f"it is larger than {limit} bytes")
    return data
