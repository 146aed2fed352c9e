"""Unix sockets that are not taken away from another server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from grpc import aio

from abstractllm.errors import ConfigurationError

__all__ = ["UnixSocket"]

_MODE = 0o660


class UnixSocket:
    """A unix socket, with a lock beside its path that is held as long as the server listens.

    gRPC itself takes over a path that another server listens on, and deletes the file when either stops.

    Args:
        listen: `unix:///absolute/path` or `unix:relative/path`.

    Raises:
        ConfigurationError: If another server holds the lock, or the path cannot be used.
    """

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self.path = Path(listen.removeprefix("unix:").removeprefix("//"))
        self.address = f"unix:{self.path}"
        if not self.path.name:
            raise self._error("the path of the socket is missing")
        if self.path.exists() and not self.path.is_socket():
            raise self._error(f"{self.path} exists and is not a socket")
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise self._error(f"{lock}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise self._error(f"another server listens on {self.path}") from None

    def bind(self, server: aio.Server) -> None:
        """Makes a server listen on the socket; only the user and the group may connect.

        Raises:
            ConfigurationError: If gRPC refuses the path.
        """
        mask = os.umask(0o777 & ~_MODE)
        try:
            server.add_insecure_port(self.address)
        except RuntimeError as error:
            os.close(self._lock)
            raise self._error(f"cannot listen on {self.path}; a path may have about 100 characters") from error
        finally:
            os.umask(mask)

    def close(self) -> None:
        """Removes the socket and releases the lock; the lock's file stays, since another server may wait for it."""
        self.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"listen: {message}", field="listen", requested=self._listen)
