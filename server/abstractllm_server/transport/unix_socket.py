"""Unix sockets that are not taken away from another server."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from pathlib import Path

from grpc import aio

from abstractllm.errors import ConfigurationError

__all__ = ["UnixSocket"]

_MODE = 0o660


class UnixSocket:
    """A unix socket, with a lock beside its path that is held as long as the server listens.

    gRPC itself takes over a path that another server listens on, and deletes the file when either stops. So it gets a
    path that nobody else uses, and the socket is then moved to its place. The lock decides between servers that start
    at the same time; one whose lock was deleted still answers, and is not replaced.

    Args:
        listen: `unix:///absolute/path` or `unix:relative/path`.

    Raises:
        ConfigurationError: If another server listens, or the path cannot be used.
    """

    def __init__(self, listen: str) -> None:
        self._listen = listen
        self._identity: tuple[int, int] | None = None
        self.path = Path(listen.removeprefix("unix:").removeprefix("//"))
        self.address = f"unix:{self.path}"
        if not self.path.name:
            raise self._error("the path of the socket is missing")
        if self.path.exists() and not self.path.is_socket():
            raise self._error(f"{self.path} exists and is not a socket")
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            self._lock = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE), "rb", buffering=0)
        except OSError as error:
            raise self._error(f"{lock}: {error.strerror}") from error
        try:
            self._take_lock()
        except BaseException:
            self._lock.close()
            raise

    def bind(self, server: aio.Server) -> None:
        """Makes a server listen on the socket; only the user and the group may connect.

        Raises:
            ConfigurationError: If gRPC refuses the path.
        """
        # Not by the process's number: in containers that share a folder all servers have the same.
        own_path = self.path.with_name(f".{secrets.token_hex(4)}")
        mask = os.umask(0o777 & ~_MODE)
        try:
            server.add_insecure_port(f"unix:{own_path}")
            own_path.rename(self.path)
        except (RuntimeError, OSError) as error:
            self._lock.close()
            raise self._too_long() from error
        finally:
            os.umask(mask)
        self._identity = self._file()

    def close(self) -> None:
        """Removes the socket and releases the lock; the lock's file stays, since another server may wait for it.

        It may be called again: by who ends the process by force, say, though it has been stopped.
        """
        if not self._lock.closed and self._identity is not None and self._file() == self._identity:
            self.path.unlink(missing_ok=True)
        self._lock.close()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._error(f"another server listens on {self.path}") from None
        if self._is_answered():
            raise self._error(f"another server listens on {self.path}, though the lock beside it is free")

    def _is_answered(self) -> bool:
        """Tells whether a server listens on the path: it takes connections, even if it is too busy for another."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                return probe.connect_ex(str(self.path)) in (0, errno.EAGAIN, errno.EINPROGRESS)
            except OSError as error:
                raise self._too_long() from error

    def _file(self) -> tuple[int, int] | None:
        """Returns what tells the file at the path from any other."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _too_long(self) -> ConfigurationError:
        return self._error(f"cannot listen on {self.path}; a path may have about 100 characters")

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"listen: {message}", field="listen", requested=self._listen)
