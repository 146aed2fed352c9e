"""Callers' bearer tokens, as the configuration's file of tokens lists them."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from abstractllm.errors import ConfigurationError
from abstractllm_server.security.identity import Identity
from abstractllm_server.settings import Role

__all__ = ["TokenFile"]

_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{64})\s+(?P<role>\S+)(?:\s+(?P<name>\S.*))?")


class TokenFile:
    """The tokens that are accepted: a file with a line `SHA256 ROLE [NAME]` for each; `#` begins a comment.

    The hash is that of the token's bytes, in hexadecimal: `printf %s "$TOKEN" | sha256sum`.

    Args:
        path: The file.

    Raises:
        ConfigurationError: Naming the line that is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identities: tuple[tuple[str, Identity], ...] = ()
        self.reload()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self._path,)

    def reload(self) -> None:
        """Reads the file again; after an error what was read before stays in force.

        Raises:
            ConfigurationError: If the file cannot be read, or a line is wrong.
        """
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"tokens: {self._path} cannot be read: {error}", field="tokens") from error
        self._identities = tuple(
            self._parse(number, line)
            for number, text in enumerate(lines, start=1)
            if (line := text.partition("#")[0].strip())
        )

    def _parse(self, number: int, line: str) -> tuple[str, Identity]:
        match = _LINE.fullmatch(line)
        if match is None or match["role"] not in tuple(Role):
            # The line is not repeated: it may hold a token that was not hashed.
            raise ConfigurationError(
                f"tokens: {self._path}:{number}: must be a SHA-256 in hexadecimal, a role ({', '.join(Role)}) "
                "and, optionally, a name",
                field="tokens",
            )
        digest = match["digest"].lower()
        return digest, Identity(match["name"] or digest[:12], Role(match["role"]))

    def find(self, token: str) -> Identity | None:
        """Returns the caller that a token belongs to, or None if the token is not listed.

        Every line is compared, each in constant time, so that the time tells nothing about the tokens.
        """
        token_digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        match = None
        for digest, identity in self._identities:
            if hmac.compare_digest(digest, token_digest):
                match = identity
        return match
