"""The `provider_state` of an answer's parts: fields that a server wants back, which the library has no place for.

Thinking models refuse a turn of the assistant that comes back without its reasoning (DeepSeek), or a call without its
signature (Gemini). Only the server that sent a field gets it back: others refuse fields that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["read_state", "server_mark", "write_state"]

_MARK = b"openai:"
"""The beginning of `provider_state`, since a conversation may hold the state of other providers, too."""

_KINDS: dict[str, type] = {"field": str, "item": dict, "message": dict, "call": dict}


def server_mark(base_url: str | None) -> str:
    """Returns a name of the server at an address, which does not tell the address."""
    return hashlib.sha256((base_url or "").rstrip("/").encode()).hexdigest()[:12]


def write_state(server: str, **fields: Any) -> bytes:
    """Returns the `provider_state` of a part.

    Args:
        server: The mark of the server that sent the part.
        **fields: JSON values, of which each may be absent: `field`, for reasoning, the name of the message's field that
            its text came in (`reasoning_content`, `reasoning`; `content` for a part of the content); `message`, further
            fields of the assistant's message as they came (`reasoning_details`, `extra_content`); `call`, further
            fields of a tool call as they came (`extra_content`).
    """
    return _MARK + json.dumps({"server": server, **fields}, separators=(",", ":")).encode()


def read_state(state: bytes, server: str) -> dict[str, Any]:
    """Returns the fields of a `provider_state`; none where another server, or another provider, wrote it.

    Raises:
        ValueError: If it begins as a state of this provider, and is none.
    """
    if not state.startswith(_MARK):
        return {}
    try:
        fields = json.loads(state.removeprefix(_MARK))
    except RecursionError as error:
        raise ValueError("other bytes than those that came with the part") from error
    if not isinstance(fields, dict) or not all(isinstance(fields[name], _KINDS.get(name, str)) for name in fields):
        raise ValueError("other bytes than those that came with the part")
    return fields if fields.pop("server", None) == server else {}
