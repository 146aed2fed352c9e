"""Changes of the file of tokens: whole or not at all, one after another, readable by its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.token_entries import ENCODING, NO_TOKENS, TokenEntry, digest_of, read_entries
from abstractllm_server.settings import Role
from abstractllm_server.settings.bounded_files import read_file

__all__ = ["TokenEditor"]

_PREFIX = "abstractllm_"
"""The beginning of tokens that are made here: programs that look for secrets in code know them by it."""
_TOKEN_BYTES = 32
_SHORTEST_ID = 8
"""Characters of a hash by which a token may be named."""
_MODE = 0o600


class TokenEditor:
    """Adds tokens to a file and takes them out of it, for a server that may be running with it.

    Args:
        path: The file; links are followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Path(os.path.realpath(path))

    def entries(self) -> tuple[TokenEntry, ...]:
        """Returns the tokens of the file; none if it does not exist, or is empty.

        Raises:
            ConfigurationError: If a line is wrong.
        """
        try:
            text = read_file(self._file).decode(ENCODING)
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError):
            return read_entries(self._path)  # which says what is wrong
        is_empty = not any(line.partition("#")[0].strip() for line in text.split("\n"))
        return () if is_empty else read_entries(self._path)

    def create(self, role: Role, label: str = "", expires_at: float | None = None) -> tuple[str, TokenEntry]:
        """Makes a token and adds its entry to the file, which is made if it does not exist.

        Returns:
            The token, which is nowhere else, and its entry.

        Raises:
            ConfigurationError: If the label cannot stand in the file, or the file cannot be changed.
        """
        token = _PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        entry = TokenEntry(digest_of(token), role, label, expires_at)
        try:
            entry.check()
        except ValueError as error:
            raise ConfigurationError(f"label: {error}", field="label", requested=label) from None
        with self._locked():
            self.entries()  # a file with a wrong line is not written again
            lines = [line for line in self._lines() if line.partition("#")[0].strip() != NO_TOKENS]
            self._write([*lines, entry.line()])
        return token, entry

    def revoke(self, name: str) -> TokenEntry:
        """Takes a token out of the file; the other lines stay as they are.

        Args:
            name: Its label, or the first characters of its hash.

        Returns:
            Its entry.

        Raises:
            ConfigurationError: If there is no such token, or several, or the file cannot be changed.
        """
        with self._locked():
            entries = self.entries()
            matching = [entry for entry in entries if name and name == entry.label]
            if len(name) >= _SHORTEST_ID:
                matching += [entry for entry in entries if entry.digest.startswith(name.lower())]
            matching = list(dict.fromkeys(matching))
            if len(matching) != 1:
                several = ", ".join(entry.digest[:12] for entry in matching)
                fault = f"is that of several tokens: {several}" if matching else "is that of no token"
                raise ConfigurationError(
                    f"{name[:80]!r} {fault} in {self._path}; name a token by its label, or by the first {_SHORTEST_ID} "
                    "or more characters of its hash",
                    field="name",
                    requested=name[:80],
                )
            (entry,) = matching
            lines = [line for line in self._lines() if not line.strip().lower().startswith(entry.digest)]
            # A file that is merely empty would count as emptied by accident, and the token go on being accepted.
            self._write(lines if len(entries) > 1 else [*lines, NO_TOKENS])
        return entry

    def _lines(self) -> list[str]:
        try:
            # Lines end as where the entries are read: Python's reading of text knows other ends, too.
            return read_file(self._file).decode(ENCODING).removesuffix("\n").split("\n")
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the lock of the file's folder: of the file itself it would be lost whenever the file is replaced."""
        try:
            folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._fault(error) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self._fault(error) from error
        finally:
            os.close(folder)

    def _write(self, lines: list[str]) -> None:
        """Puts a new file in the place of the old one, whose owner stays."""
        descriptor, name = tempfile.mkstemp(prefix=f".{self._file.name}.", dir=self._file.parent)  # of mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                self._keep_owner(file.fileno())
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _keep_owner(self, descriptor: int) -> None:
        try:
            before = self._file.stat()
        except FileNotFoundError:
            return
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, before.st_uid, before.st_gid)
        # A group that may read it is one on purpose: the server's, where root owns the file.
        is_read_by_group = stat.S_IMODE(before.st_mode) == 0o640
        os.fchmod(descriptor, 0o640 if is_read_by_group else _MODE)

    def _sync_folder(self) -> None:
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _fault(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"{self._path} cannot be changed: {error.strerror or error}", field="file")
