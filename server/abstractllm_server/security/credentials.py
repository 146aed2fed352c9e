"""Callers' bearer tokens, as the configuration's file of tokens lists them."""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from pathlib import Path

from abstractllm.errors import AuthenticationError
from abstractllm_server.security.file_modes import is_writable_by_others
from abstractllm_server.security.identity import Identity
from abstractllm_server.security.token_entries import TokenEntry, digest_of, read_entries

__all__ = ["TokenFile"]

logger = logging.getLogger("abstractllm.server")


class TokenFile:
    """The tokens that are accepted: a file with a line `SHA256 ROLE [expires=TIME] [LABEL]` for each.

    The hash is that of the token's bytes, in hexadecimal: `printf %s "$TOKEN" | sha256sum`; `abstractllm token create`
    makes a token and adds its line.

    Args:
        path: The file.

    Raises:
        ConfigurationError: Naming the line that is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Entries are looked up by a hash of the hash, whose key nobody knows: the time that it takes tells nothing.
        self._key = secrets.token_bytes(32)
        self._entries: dict[bytes, TokenEntry] = {}
        self.reload()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self._path,)

    def reload(self) -> None:
        """Reads the file again; after an error what was read before stays in force.

        Raises:
            ConfigurationError: If the file cannot be read or is empty, a line is wrong, or two have the same token.
        """
        entries = read_entries(self._path)
        self._entries = {self._place(entry.digest): entry for entry in entries}
        if not entries:
            logger.warning("%s says that there are no tokens: nobody can call with one", self._path)
        if is_writable_by_others(self._path):
            logger.warning(
                "SECURITY: %s can be written by other users than its owner: each of them can make themselves an "
                "admin; chmod 0600 mends it",
                self._path,
            )

    def find(self, token: str) -> Identity | None:
        """Returns the caller that a token belongs to, or None if the token is not listed.

        Raises:
            AuthenticationError: If the token has expired.
        """
        entry = self._entries.get(self._place(digest_of(token)))
        if entry is None:
            return None
        if entry.expires_at is not None and time.time() >= entry.expires_at:
            raise AuthenticationError("authorization: the token has expired", field="authorization")
        return Identity(entry.name, entry.role)

    def _place(self, digest: str) -> bytes:
        return hmac.digest(self._key, digest.encode(), "sha256")
