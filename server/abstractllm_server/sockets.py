"""Listening on a unix socket without stealing it from another server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from abstractllm.errors import ConfigurationError

__all__ = ["UnixSocket"]


class UnixSocket:
    """Holds a lock beside the socket's path while it is listened on.

    gRPC itself takes over a path that another server listens on, and deletes the file when either stops.

    Args:
        listen: `unix:///absolute/path` or `unix:relative/path`.

    Raises:
        ConfigurationError: If another server holds the lock, or the path cannot be used.
    """

    def __init__(self, listen: str) -> None:
        self.path = Path(listen.removeprefix("unix:").removeprefix("//"))
        self.address = f"unix:{self.path}"
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        except OSError as error:
            raise ConfigurationError(f"listen: {lock}: {error.strerror}", field="listen", requested=listen) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(
                f"listen: another server listens on {self.path}", field="listen", requested=listen
            ) from None

    def close(self) -> None:
        """Removes the socket and releases the lock; the lock's file stays, since another server may wait for it."""
        self.path.unlink(missing_ok=True)
        os.close(self._lock)
