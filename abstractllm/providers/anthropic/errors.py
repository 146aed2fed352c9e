"""Turning the errors of the Messages API into the library's."""

from __future__ import annotations

import re
from typing import Any

from abstractllm.errors import AbstractLLMError, InvalidRequestError
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.providers.hosted import classify, read_report, upstream_error

__all__ = ["api_error"]

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

    Within a stream the HTTP status is 200, and the error's own type decides
    (https://platform.claude.com/docs/en/api/errors).
    """
    is_in_stream = error.status_code < 300
    report = read_report((error.body or str(error.message)) if is_in_stream else error.response.content)
    status = None if is_in_stream else error.status_code
    facts: dict[str, Any] = {}
    if (match := re.match(r"([a-z_]+)[.:\[]", report.message)) and classify(status, report).kind is InvalidRequestError:
        facts = {"field": _FIELDS.get(match[1])}
    return upstream_error(
        report,
        status=status,
        headers=error.response.headers,
        source=f"HTTP {error.status_code}",
        request_id=error.request_id,
        upstream_status=error.status_code,
        **facts,
    )
