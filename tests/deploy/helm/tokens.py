"""Tokens, and the lines of a file that accepts them."""

import hashlib

TOKEN = "a-token-of-the-tests"
OTHER_TOKEN = "another-token-of-the-tests"


def line(token: str, role: str = "inference", label: str = "backend") -> str:
    """The line of a file of tokens."""
    return f"{hashlib.sha256(token.encode()).hexdigest()} {role} {label}\n"
