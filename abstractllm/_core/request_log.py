"""The log of requests and answers: ids, tokens, times and outcomes always, their content only where configured.

Keys are never logged: they live in `SecretStr` values. A server writes one line for each call by itself, so that here
only requests that came without one are written.
"""

from __future__ import annotations

import logging
from typing import Any

from abstractllm.call_record import CallRecord
from abstractllm.errors import AbstractLLMError, ErrorReason
from abstractllm.requests import GenerationRequest
from abstractllm.types import Finished
from abstractllm.utils.log_lines import StructuredMessage
from abstractllm.utils.logging import logger

__all__ = ["call_fields", "log_outcome", "log_start"]


def call_fields(record: CallRecord) -> dict[str, Any]:
    """Returns what is known of a call, by name: ids, tokens, times, its end; never its content.

    The message of an error is none of it, since it may repeat what the caller or the provider wrote.
    """
    error = record.error
    values: dict[str, Any] = {
        "request_id": record.request_id,
        "llm": record.llm,
        "provider": record.provider,
        "model": record.model,
        "finish_reason": record.finish_reason,
        "error": str(error.reason) if error else "",
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cached_input_tokens": record.cached_input_tokens,
        "reasoning_tokens": record.reasoning_tokens,
        "attempts": len(record.attempts) if len(record.attempts) > 1 else None,
        "queued": _rounded(record.queued),
        "prefill": _rounded(record.prefill),
        "decode": _rounded(record.decode),
        "first_token": _rounded(record.time_to_first_token),
        "seconds": _rounded(record.seconds),
        "labels": dict(record.labels),
    }
    return {name: value for name, value in values.items() if value not in (None, "", {})}


def log_start(request: GenerationRequest, *, with_content: bool, **facts: Any) -> None:
    """Logs at DEBUG level that a request begins.

    Args:
        request: The request as it will be answered.
        with_content: True to log its messages, too.
        **facts: Further facts, such as `provider`, `llm`, `model`.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return
    names = ",".join(name for name in request.parameters.set_fields() if name != "model") or "-"
    fields = facts | {"request_id": request.request_id, "parameters": names, "labels": dict(request.labels)}
    logger.debug(StructuredMessage("request", fields))
    if with_content:
        logger.debug(
            StructuredMessage("request", {"request_id": request.request_id, "messages": repr(request.conversation())})
        )


def log_outcome(record: CallRecord, text: str, outcome: Finished | BaseException | None, *, with_content: bool) -> None:
    """Logs how a request ended: at INFO level with an answer or left by its caller, at WARNING level with an error.

    Args:
        record: The record of the request's call.
        text: The answer's text, as far as it came.
        outcome: The final event or the error; anything else counts as cancelled.
        with_content: True to log the text, too.
    """
    level = logging.WARNING if isinstance(outcome, AbstractLLMError) else logging.INFO
    if not record.method and logger.isEnabledFor(level):
        fields = call_fields(record)
        if isinstance(outcome, Finished):
            fields.pop("error", None)  # that of an attempt before
        elif not isinstance(outcome, AbstractLLMError):
            fields["error"] = str(ErrorReason.CANCELLED)
        logger.log(level, StructuredMessage("response", fields))
    if with_content and logger.isEnabledFor(logging.DEBUG):
        logger.debug(StructuredMessage("response", {"request_id": record.request_id, "text": text}))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
