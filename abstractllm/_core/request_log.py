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
from abstractllm.utils.log_lines import StructuredMessage, shortened
from abstractllm.utils.logging import logger

__all__ = ["log_outcome", "log_start"]


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
    fields = facts | {"request_id": request.request_id, "parameters": names, "labels": dict(request.labels) or "-"}
    logger.debug(StructuredMessage("request", fields))
    if with_content:
        messages = shortened(repr(request.conversation()))
        logger.debug(StructuredMessage("request", {"request_id": request.request_id, "messages": messages}))


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
        fields = record.facts()
        if isinstance(outcome, Finished):
            fields.pop("error", None)  # that of an attempt before
        elif not isinstance(outcome, AbstractLLMError):
            fields["error"] = str(ErrorReason.CANCELLED)
        logger.log(level, StructuredMessage("response", fields))
    if with_content and logger.isEnabledFor(logging.DEBUG):
        logger.debug(StructuredMessage("response", {"request_id": record.request_id, "text": shortened(text)}))
