"""Turning OpenAI's errors, and those of compatible servers, into the library's.

The codes: https://developers.openai.com/api/docs/guides/error-codes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContentBlockedError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ProviderCredentialsError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    UnsupportedParameterError,
)
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.hosted import import_sdk, status_error

__all__ = ["error_of_body", "translate"]

_CODES: dict[str, type[AbstractLLMError]] = {
    "insufficient_quota": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    "billing_not_active": QuotaExceededError,
    "context_length_exceeded": ContextLengthExceededError,
    "exceed_context_size_error": ContextLengthExceededError,  # llama.cpp
    "model_not_found": ModelNotFoundError,
    "content_filter": ContentBlockedError,
    "content_policy_violation": ContentBlockedError,
    "moderation_blocked": ContentBlockedError,
    "invalid_prompt": ContentBlockedError,
    "invalid_api_key": ProviderCredentialsError,
    "unsupported_parameter": UnsupportedParameterError,
    "unsupported_value": UnsupportedParameterError,
    "rate_limit_exceeded": RateLimitedError,
    "server_error": ProviderUnavailableError,
    "invalid_request_error": InvalidRequestError,
    "BadRequestError": InvalidRequestError,  # vLLM
}
_GENERAL = ("invalid_request_error", "BadRequestError", "server_error")
"""Types that tell less than an HTTP status does."""
_FIELDS = {name: f"parameters.{name}" for name in GENERATION_PARAMETERS} | {
    "max_completion_tokens": "parameters.max_tokens"
}
_CONTEXT = re.compile(r"maximum (?:context|model) length|context (?:length|size|window)|exceeds? .{0,20}context", re.I)
_CONTEXT_LIMIT = re.compile(r"(?:maximum (?:context|model) length (?:is|of)|context size) \(?(\d+)", re.I)
_CONTEXT_REQUESTED = re.compile(r"(?:resulted in|requested|request \(|contains (?:at least )?)\s*\(?(\d+)", re.I)


def translate(error: Exception) -> AbstractLLMError | None:
    """Returns the library's error for one of the SDK's; None for a failure of the connection, or any other error."""
    openai = import_sdk("openai")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APIConnectionError):
        return None
    if isinstance(error, openai.APIResponseValidationError):
        return ProviderProtocolError(f"the answer cannot be read: {error.message[:200]}")
    if isinstance(error, openai.APIError):
        body = error.body if isinstance(error.body, Mapping) else {"message": error.message}
        return error_of_body(body, "in the stream")
    return None


def error_of_body(body: Mapping[str, Any], source: str) -> AbstractLLMError:
    """Makes the error for one that is reported in the middle of an answer.

    Args:
        body: The error, as the provider describes it.
        source: The answer that it came in, for the message.
    """
    code = body.get("code")
    message = f"{str(body.get('message') or 'an error without a message')[:1000]} ({source})"
    kind = _kind(body, str(body.get("message") or ""), general=True)
    if kind is None and isinstance(code, int) and 400 <= code <= 599:
        return status_error(code, message, {})
    return (kind or ProviderUnavailableError)(message, **_facts(body, message, kind))


def _of_status(error: Any) -> AbstractLLMError:
    body = error.body if isinstance(error.body, Mapping) else {}
    # A server without this API answers with a page.
    text = str(body.get("message") or body.get("detail") or error.body or "")
    kind = _kind(body, text, general=False)
    if error.status_code == 404 and kind is None and "model" not in text.lower():
        kind = ConfigurationError
        text = f"base_url has no Chat Completions API: {text}"
        body = {"param": "base_url"}
    if kind is ContextLengthExceededError and error.status_code not in (400, 413, 422):
        kind = None
    return status_error(
        error.status_code,
        text,
        error.response.headers,
        kind=kind,
        request_id=error.request_id,
        **_facts(body, text, kind),
    )


def _kind(body: Mapping[str, Any], message: str, *, general: bool) -> type[AbstractLLMError] | None:
    for name in (body.get("code"), body.get("type")):
        if isinstance(name, str) and name in _CODES and name not in _GENERAL:
            return _CODES[name]
    if _CONTEXT.search(message):
        return ContextLengthExceededError
    kind = body.get("type")
    return _CODES.get(kind) if general and isinstance(kind, str) else None


def _facts(body: Mapping[str, Any], message: str, kind: type[AbstractLLMError] | None) -> dict[str, Any]:
    if kind is ContextLengthExceededError:
        limit, requested = _CONTEXT_LIMIT.search(message), _CONTEXT_REQUESTED.search(message)
        return {"limit": limit and int(limit[1]), "requested": requested and int(requested[1])}
    parameter = body.get("param")
    if not isinstance(parameter, str) or not parameter:
        return {}
    name = re.split(r"[.\[]", parameter)[0]
    return {"field": "chat.messages" if name == "messages" else _FIELDS.get(name, parameter[:200])}
