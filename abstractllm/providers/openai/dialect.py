"""The rules of servers that speak OpenAI's format for the conversations that they take.

Sources: https://api-docs.deepseek.com/guides/thinking_mode, https://ai.google.dev/gemini-api/docs/thought-signatures,
https://mistralai.github.io/mistral-common/usage/tools, and the servers' own error messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from abstractllm.providers.hosted.history import CallIds

__all__ = ["Dialect", "dialect_of"]


_ANY_IDS = CallIds(r"[!-~]+", 24)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The rules of one server."""

    call_ids: CallIds = _ANY_IDS
    user_after_tool: bool = True
    """True if a user's message may follow a tool's directly."""
    missing_reasoning: str | None = None
    """The `reasoning_content` of an assistant's message that has none, among messages that must have one."""
    missing_signature: dict[str, Any] = field(default_factory=dict)
    """The fields of a call that another model has made, where the server wants its own signature on each."""


_OPENAI = Dialect(CallIds(r"[!-~]{1,40}", 24))
_MISTRAL = Dialect(CallIds(r"[A-Za-z0-9]{9}", 9), user_after_tool=False)
_SKIP = {"thought_signature": "skip_thought_signature_validator"}
_BY_HOST = {
    "api.openai.com": _OPENAI,
    "azure.com": _OPENAI,
    "mistral.ai": _MISTRAL,
    "deepseek.com": Dialect(missing_reasoning=""),
    "xiaomimimo.com": Dialect(missing_reasoning=""),
    "moonshot.ai": Dialect(missing_reasoning=" "),
    "moonshot.cn": Dialect(missing_reasoning=" "),
    "generativelanguage.googleapis.com": Dialect(missing_signature={"extra_content": {"google": _SKIP}}),
    "aiplatform.googleapis.com": Dialect(missing_signature={"extra_content": {"google": _SKIP, "vertex": _SKIP}}),
}
_MISTRAL_MODELS = re.compile(r"mi[sx]tral|magistral|ministral|pixtral|codestral|devstral|voxtral", re.I)


def dialect_of(base_url: str, model: str) -> Dialect:
    """Returns the rules of the server at an address; those of Mistral for its models, wherever they are served.

    Args:
        base_url: The address before `/chat/completions`.
        model: The model that is asked.
    """
    host = urlsplit(base_url).hostname or ""
    for domain, dialect in _BY_HOST.items():
        if host == domain or host.endswith((f".{domain}", f"-{domain}")):
            return dialect
    return _MISTRAL if _MISTRAL_MODELS.search(model) else Dialect()
