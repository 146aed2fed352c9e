"""Turning the errors of an Ollama server into the library's."""

from __future__ import annotations

import re
from typing import Any

from abstractllm.errors import (
    AbstractLLMError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    RateLimitedError,
    UnsupportedFeatureError,
    UnsupportedParameterError,
)
from abstractllm.providers.hosted import ErrorReport, read_report, upstream_error

__all__ = ["response_error"]

_MIDWAY = -1
"""The status that the SDK gives to an error within a stream."""
_KINDS: tuple[tuple[str, type[AbstractLLMError], str | None], ...] = (
    (r"does not support tools", UnsupportedFeatureError, "tools"),
    (r"does not support (?:chat|generate)", UnsupportedFeatureError, "chat"),
    (r"does not support (?:multimodal|image)|unable to process input image", UnsupportedFeatureError, "image"),
    (r"does not support thinking", UnsupportedParameterError, "parameters.reasoning_effort"),
    (r"think value", InvalidRequestError, "parameters.reasoning_effort"),
    (r"^model .* not found", ModelNotFoundError, "parameters.model"),
    (r"^pull model manifest: (?:file does not exist|404\b)|invalid model name", ModelNotFoundError, "model"),
    (r"^pull model manifest: 40[13]\b|^unauthorized: access denied|: unauthorized\b", ProviderCredentialsError, None),
    (r"^pull model manifest: 429\b", RateLimitedError, None),
    (r"server busy|maximum pending requests", OverloadedError, None),
    (r"exceeds? the (?:available )?context (?:length|size)", ContextLengthExceededError, "chat"),
    (r"^invalid format|failed to (?:parse|create) grammar|grammar", InvalidRequestError, "response_format"),
)


def response_error(error: Any) -> AbstractLLMError:
    """Returns the library's error for the SDK's `ResponseError`, with the server's whole message."""
    # The SDK drops the answer, and with it the headers, but Python keeps the exception that it handled.
    response = getattr(error.__context__, "response", None)
    report = read_report(error.error if response is None else response.content)
    kind, facts = _classified(report)
    if error.status_code == _MIDWAY:
        return upstream_error(report, kind=kind, source="the server broke off", **facts)
    headers = {} if response is None else response.headers
    return upstream_error(report, status=error.status_code, headers=headers, kind=kind, **facts)


def _classified(report: ErrorReport) -> tuple[type[AbstractLLMError] | None, dict[str, Any]]:
    """Returns the error's class, where the server's own words tell it, and further attributes of the error."""
    for pattern, kind, field in _KINDS:
        if re.search(pattern, report.message, re.I):
            return kind, {"field": field} if field else {}
    return None, {}
