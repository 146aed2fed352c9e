"""Tokens for the servers that are measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

TOKEN = "reliability-inference-token"
ADMIN = "reliability-admin-token"


def token_line(token: str, role: str, name: str) -> str:
    """Returns the line of a token in a file of tokens."""
    return f"{hashlib.sha256(token.encode()).hexdigest()} {role} {name}\n"


def token_file(folder: Path, **further: tuple[str, str]) -> Path:
    """Writes a file with both tokens, and further ones: their names with token and role.

    Returns:
        Its path.
    """
    path = folder / "tokens.txt"
    lines = [token_line(TOKEN, "inference", "caller"), token_line(ADMIN, "admin", "operator")]
    lines += [token_line(token, role, name) for name, (token, role) in further.items()]
    folder.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(lines))
    return path
