"""Turning OpenAI's errors, and those of compatible servers, into the library's.

The codes: https://developers.openai.com/api/docs/guides/error-codes
"""

from __future__ import annotations

from typing import Any

from abstractllm.errors import AbstractLLMError, ProviderProtocolError
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.hosted import import_sdk, read_report, upstream_error

__all__ = ["error_of_body", "translate"]

_FIELDS = {name: f"parameters.{name}" for name in GENERATION_PARAMETERS} | {
    "max_completion_tokens": "parameters.max_tokens",
    "messages": "chat.messages",
}


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
        return error_of_body(error.body or error.message, "in the stream")
    return None


def error_of_body(body: object, source: str) -> AbstractLLMError:
    """Makes the error for one that is reported in the middle of an answer.

    Args:
        body: The error, as the provider describes it: an object, a list or a text.
        source: The answer that it came in, for the message.
    """
    return upstream_error(read_report(body), source=source, fields=_FIELDS)


def _of_status(error: Any) -> AbstractLLMError:
    # The SDK keeps only what is under `error`; some servers put the code beside it.
    return upstream_error(
        read_report(error.response.content),
        status=error.status_code,
        headers=error.response.headers,
        request_id=error.request_id,
        fields=_FIELDS,
    )
