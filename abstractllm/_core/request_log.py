"""The log of requests and answers: ids, tokens, times and outcomes always, their content only where configured.

Keys are never logged: they live in `SecretStr` values.
"""

from __future__ import annotations

import logging
from typing import Any

from abstractllm.errors import AbstractLLMError
from abstractllm.requests import GenerationRequest
from abstractllm.types import Finished
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
    labels = ",".join(f"{key}={value}" for key, value in request.labels.items()) or "-"
    line = _join(facts | {"request_id": request.request_id})
    logger.debug("request %s parameters=%s labels=%s", line, names, labels)
    if with_content:
        logger.debug("request %s messages=%r", line, request.conversation())


def log_outcome(
    text: str, outcome: Finished | BaseException | None, *, with_content: bool, seconds: float, **facts: Any
) -> None:
    """Logs how a request ended: at INFO level with an answer or left by its caller, at WARNING level with an error.

    Args:
        text: The answer's text, as far as it came.
        outcome: The final event or the error; anything else counts as cancelled.
        with_content: True to log the text, too.
        seconds: Seconds from the request's arrival to its end.
        **facts: Further facts, such as `provider`, `request_id`.
    """
    level = logging.WARNING if isinstance(outcome, AbstractLLMError) else logging.INFO
    if not logger.isEnabledFor(level):
        return
    match outcome:
        case AbstractLLMError():
            result = f"error={outcome.reason}"
        case Finished():
            usage = outcome.usage
            result = f"finish_reason={outcome.finish_reason} input={usage.input_tokens} output={usage.output_tokens}"
        case _:
            result = "cancelled"
    line = _join(facts)
    logger.log(level, "response %s %s seconds=%.3f", line, result, seconds)
    if with_content:
        logger.debug("response %s text=%r", line, text)


def _join(facts: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in facts.items())
