"""Lines of the file of tokens: `SHA256 ROLE [expires=TIME] [LABEL]`; `#` begins a comment."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from abstractllm.errors import ConfigurationError
from abstractllm_server.settings import Role
from abstractllm_server.settings.bounded_files import read_file

__all__ = ["ENCODING", "NO_TOKENS", "TokenEntry", "digest_of", "expiry_time", "read_entries"]

NO_TOKENS = "none"
"""The line of a file that is to hold no token: one without any line may have been emptied by accident."""

ENCODING = "utf-8-sig"
"""That of the file: some editors begin UTF-8 with a mark, which is no part of the first line."""
_LINE = re.compile(
    r"(?P<digest>[0-9a-fA-F]{64})\s+(?P<role>\S+)(?:\s+expires=(?P<expires>\S+))?(?:\s+(?P<label>\S.*))?", re.ASCII
)
_LONGEST_LABEL = 128


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A token that is accepted.

    Attributes:
        digest: The SHA-256 of the token's bytes, in hexadecimal.
        role: Its caller's rights.
        label: The name that its caller has in logs; the beginning of the digest if empty.
        expires_at: The time from which it is refused, in seconds since 1970; None if it is accepted for ever.
    """

    digest: str
    role: Role
    label: str = ""
    expires_at: float | None = None

    @property
    def name(self) -> str:
        """The caller's name."""
        return self.label or self.digest[:12]

    def line(self) -> str:
        """Returns the entry as a line of the file."""
        expires = () if self.expires_at is None else (f"expires={_time_text(self.expires_at)}",)
        return " ".join((self.digest, self.role, *expires, *((self.label,) if self.label else ())))

    def check(self) -> None:
        """Checks that the label can stand in a line.

        Raises:
            ValueError: If it cannot.
        """
        if not self.label.isprintable() or "#" in self.label or len(self.label) > _LONGEST_LABEL:
            raise ValueError(f"the label must be at most {_LONGEST_LABEL} printable characters without #")
        if self.label != self.label.strip():
            raise ValueError("the label must not begin or end with a space")
        if any(word.startswith("expires=") for word in self.label.lower().split()):
            raise ValueError("a label has no expires=: that stands before the label, and there once")


def digest_of(token: str) -> str:
    """Returns the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read_entries(path: Path) -> tuple[TokenEntry, ...]:
    """Reads the entries of a file; none if it says so with the line `none`.

    Raises:
        ConfigurationError: If the file cannot be read or is empty, a line is wrong, or two lines have the same token.
    """
    try:
        text = read_file(path).decode(ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"tokens: {path} cannot be read: {error}", field="tokens") from error
    lines = [line.partition("#")[0].strip() for line in text.split("\n")]
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    if [line for _, line in numbered] == [NO_TOKENS]:
        return ()
    if not numbered:
        raise ConfigurationError(
            f"tokens: {path} holds no token, which would lock everybody out; `abstractllm token create` adds one, and "
            f"the line `{NO_TOKENS}` says that there is none",
            field="tokens",
        )
    return tuple(_parsed(path, numbered))


def _parsed(path: Path, numbered: Iterable[tuple[int, str]]) -> Iterator[TokenEntry]:
    first: dict[str, int] = {}
    for number, line in numbered:
        try:
            entry = _parse(line)
        except ValueError as error:
            raise ConfigurationError(f"tokens: {path}:{number}: {error}", field="tokens") from None
        if entry.digest in first:
            raise ConfigurationError(
                f"tokens: {path}:{number}: is the token of line {first[entry.digest]} again; a token has one role",
                field="tokens",
            )
        first[entry.digest] = number
        yield entry


def _parse(line: str) -> TokenEntry:
    """Reads one line.

    Raises:
        ValueError: Naming the rule that it breaks. The line is not repeated: it may hold a token that was not hashed.
    """
    match = _LINE.fullmatch(line)
    if match is None or match["role"] not in tuple(Role):
        raise ValueError(
            f"must be a SHA-256 in hexadecimal, a role ({', '.join(Role)}) and, optionally, expires=TIME and a label"
        )
    expires_at = _parse_time(match["expires"])
    entry = TokenEntry(match["digest"].lower(), Role(match["role"]), match["label"] or "", expires_at)
    if entry.digest == digest_of(""):
        raise ValueError("is the SHA-256 of nothing: the variable that was to hold the token was empty")
    entry.check()
    return entry


def _parse_time(text: str | None) -> float | None:
    """Reads a time as ISO 8601 has it, such as `2027-01-31` or `2027-01-31T12:00:00Z`, as seconds since 1970.

    Without an offset it is in UTC; without a time of day it is the day's beginning. None stays None.

    Raises:
        ValueError: If it is no such time.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # In UTC, which must be within the years that there are: it is written so.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("the time of the expiry must be as 2027-01-31 or 2027-01-31T12:00:00Z") from None


def expiry_time(text: str) -> float:
    """Reads the time of an expiry, or a span from now such as `12h` or `90d`, as seconds since 1970.

    Raises:
        ValueError: If it is neither, or is past.
    """
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    now = time.time()
    seconds = now + int(match[1]) * {"m": 60, "h": 3600, "d": 86_400}[match[2]] if match else _parse_time(text)
    if seconds is None or seconds <= now:
        raise ValueError(f"{text} is past: such a token would be refused from the beginning")
    return seconds


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
