"""Turning the errors of an Ollama server into the library's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from abstractllm.errors import (
    AbstractLLMError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    ProviderUnavailableError,
    RateLimitedError,
    UnsupportedFeatureError,
)
from abstractllm.providers.hosted import status_error

__all__ = ["response_error"]

_MIDWAY = -1
"""The status that the SDK gives to an error within a stream."""
_KINDS: tuple[tuple[str, type[AbstractLLMError], str | None], ...] = (
    (r"does not support tools", UnsupportedFeatureError, "tools"),
    (r"does not support (?:chat|generate)", UnsupportedFeatureError, "chat"),
    (r"does not support (?:multimodal|image)|unable to process input image", UnsupportedFeatureError, "image"),
    (r"does not support thinking|think value", InvalidRequestError, "parameters.reasoning_effort"),
    (r"^model .* not found", ModelNotFoundError, "parameters.model"),
    (r"^pull model manifest: (?:file does not exist|404\b)|invalid model name", ModelNotFoundError, "model"),
    (r"^pull model manifest: 40[13]\b|^unauthorized: access denied|: unauthorized\b", ProviderCredentialsError, None),
    (r"^pull model manifest: 429\b", RateLimitedError, None),
    (r"server busy|maximum pending requests", OverloadedError, None),
    (r"^invalid format|failed to (?:parse|create) grammar|grammar", InvalidRequestError, "response_format"),
)
_CONTEXT = re.compile(r"exceeds? the (?:available )?context (?:length|size)|exceed_context_size", re.I)


def response_error(error: Any) -> AbstractLLMError:
    """Returns the library's error for the SDK's `ResponseError`, with the server's whole message."""
    message, detail = _message(error.error)
    # The SDK drops the answer, and with it the headers, but Python keeps the exception that it handled.
    response = getattr(error.__context__, "response", None)
    headers: Mapping[str, str] = {} if response is None else response.headers
    kind, facts = _classified(message, detail)
    if error.status_code == _MIDWAY:
        return (kind or ProviderUnavailableError)(f"the server broke off: {message[:1000]}", **facts)
    return status_error(error.status_code, message, headers, kind=kind, **facts)


def _classified(message: str, detail: Mapping[str, Any]) -> tuple[type[AbstractLLMError] | None, dict[str, Any]]:
    """Returns the error's class, where the message tells it, and further attributes of the error."""
    if _CONTEXT.search(message):
        numbers = {"requested": detail.get("n_prompt_tokens"), "limit": detail.get("n_ctx")}
        return ContextLengthExceededError, {"field": "chat"} | numbers
    for pattern, kind, field in _KINDS:
        if re.search(pattern, message, re.I):
            return kind, {"field": field} if field else {}
    return None, {}


def _message(error: object) -> tuple[str, Mapping[str, Any]]:
    """Returns the server's message, and the numbers beside it.

    Newer servers pass on another server's JSON, as text.
    """
    if isinstance(error, str):
        try:
            inner = json.loads(error)
        except ValueError:
            return error, {}
        error = inner.get("error", inner) if isinstance(inner, Mapping) else inner
    if isinstance(error, Mapping):
        return str(error.get("message", error)), error
    return str(error), {}
