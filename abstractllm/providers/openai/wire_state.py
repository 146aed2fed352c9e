"""The fields of an answer that its API wants back on the next turn, kept in a part's `provider_state`.

DeepSeek wants `reasoning_content` beside the calls that followed from it, OpenRouter its `reasoning_details`, Gemini's
compatible endpoint the signature in a call's `extra_content`, Mistral its thinking parts. They are opaque here, and go
only to the server that they came from: others refuse fields that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from abstractllm.validation import replace_surrogates

__all__ = ["REASONING_FIELDS", "STATE_MARK", "WireState", "server_mark"]

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
"""Fields of a message in which servers give, and take back, the text of its reasoning; some give it in two."""

STATE_MARK = b"openai:"
"""The beginning of `provider_state`, since a conversation may hold the state of other providers, too."""


def server_mark(base_url: str) -> str:
    """Returns a name of the server at an address, which does not tell the address."""
    parts = urlsplit(base_url)
    return hashlib.sha256(f"{parts.hostname}:{parts.port}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class WireState:
    """The fields that go back with one part of an assistant's message."""

    server: str
    """The mark of the server that they came from."""
    text_field: str = ""
    """The field of the message that the part's own text belongs in, together with the texts of other such parts."""
    message: dict[str, Any] = field(default_factory=dict)
    """Fields of the message. Where several parts have a list under one name, these follow one another."""
    content: list[Any] = field(default_factory=list)
    """Items of the list `content`, in this part's place."""
    call: dict[str, Any] = field(default_factory=dict)
    """Fields of the tool call that the part is."""

    def to_bytes(self) -> bytes:
        """Returns the state as it stands in a part; empty where there is nothing to be sent back."""
        values = {
            name: value for name in ("text_field", "message", "content", "call") if (value := getattr(self, name))
        }
        if not values:
            return b""
        text = json.dumps({"server": self.server, **values}, separators=(",", ":"), ensure_ascii=False)
        return STATE_MARK + replace_surrogates(text).encode()

    @classmethod
    def of(cls, state: bytes) -> WireState | None:
        """Reads the state of a part; None for that of another provider, and for none.

        Raises:
            ValueError: If it begins as a state of this provider, and is none.
        """
        if not state.startswith(STATE_MARK):
            return None
        try:
            values = json.loads(state.removeprefix(STATE_MARK))
            kinds = {"server": str, "text_field": str, "message": dict, "content": list, "call": dict}
            if all(isinstance(values[name], kinds[name]) for name in values):
                return cls(**values)
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError("other bytes than those that came with the part") from error
        raise ValueError("other bytes than those that came with the part")
