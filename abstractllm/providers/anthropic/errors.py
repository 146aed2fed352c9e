"""Turning the errors of the Messages API into the library's."""

from __future__ import annotations

import re
from typing import Any

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
)
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.hosted import status_error

__all__ = ["api_error"]

_TYPES: dict[str, type[AbstractLLMError]] = {
    "api_error": ProviderUnavailableError,
    "authentication_error": ProviderCredentialsError,
    "billing_error": QuotaExceededError,
    "conflict_error": ProviderUnavailableError,
    "invalid_request_error": InvalidRequestError,
    "not_found_error": ModelNotFoundError,
    "overloaded_error": OverloadedError,
    "permission_error": ProviderCredentialsError,
    "rate_limit_error": RateLimitedError,
    "request_too_large": InvalidRequestError,
    "timeout_error": ProviderUnavailableError,
}
"""https://platform.claude.com/docs/en/api/errors"""
_FIELDS = {name: f"parameters.{name}" for name in GENERATION_PARAMETERS} | {
    "messages": "chat.messages",
    "output_config": "response_format",
    "stop_sequences": "parameters.stop",
    "system": "system_prompt",
    "tool_choice": "tool_choice",
    "tools": "tools",
}
"""The library's names of the fields with which a message of the API begins."""


def api_error(error: Any) -> AbstractLLMError:
    """Returns the library's error for the SDK's `APIStatusError`.

    The error's own type decides, since within a stream the HTTP status is always 200.
    """
    message = error.api_message or str(error.message)
    kind = _TYPES.get(error.type or "")
    facts: dict[str, Any] = {}
    if kind in (InvalidRequestError, RateLimitedError) and _is_quota(error, message):
        kind = QuotaExceededError
    elif kind is InvalidRequestError:
        kind, facts = _invalid(message)
    elif kind is None and error.status_code == 529:
        kind = OverloadedError
    elif kind is None and error.status_code == 404:
        # An error without the API's own type does not come from the API.
        kind, facts = ConfigurationError, {"field": "base_url"}
    return status_error(
        error.status_code, message, error.response.headers, kind=kind, request_id=error.request_id, **facts
    )


def _is_quota(error: Any, message: str) -> bool:
    """Tells whether money has run out, for which the API has the statuses 400 and 429, too."""
    return "spend_limit" in (error.error_code or "") or bool(
        re.search(r"credit balance is too low|usage limits|spend limit", message)
    )


def _invalid(message: str) -> tuple[type[AbstractLLMError], dict[str, Any]]:
    if match := re.search(r"prompt is too long(?:: (\d+) tokens > (\d+))?", message):
        return ContextLengthExceededError, _numbers(match[1], match[2])
    if match := re.search(r"exceed context limit: (\d+) \+ (\d+) > (\d+)", message):
        return ContextLengthExceededError, _numbers(str(int(match[1]) + int(match[2])), match[3])
    match = re.match(r"([a-z_]+)[.:\[]", message)
    return InvalidRequestError, {"field": _FIELDS.get(match[1])} if match else {}


def _numbers(requested: str | None, limit: str | None) -> dict[str, Any]:
    return {"requested": int(requested), "limit": int(limit)} if requested and limit else {}
