"""Logging of requests and answers: ids, tokens, times and outcomes always, their content only when asked for.

The package's logger is named `abstractllm` and stays silent until the program configures logging, for example with
`setup_logging`. Keys are never logged: they live in `SecretStr` values.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abstractllm.requests import GenerationRequest
    from abstractllm.types import Finished

__all__ = ["log_request", "log_response", "setup_logging"]

logger = logging.getLogger("abstractllm")
logger.addHandler(logging.NullHandler())


def log_request(provider: str, request: GenerationRequest, content: bool = False, /, **facts: Any) -> None:
    """Logs a request at DEBUG level.

    Args:
        provider: The provider's name.
        request: The request; its prompt is written only if `content` is set.
        content: Whether to write the prompt.
        **facts: What else is known, such as `request_id`, `llm`, `model`.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return
    names = ",".join(name for name in request.parameters.set_fields() if name != "model") or "-"
    labels = ",".join(f"{key}={value}" for key, value in request.labels.items())
    logger.debug("request provider=%s %s parameters=%s labels=%s", provider, _facts(facts), names, labels or "-")
    if content:
        logger.debug("request %s messages=%r", _facts(facts), request.conversation())


def log_response(
    provider: str,
    text: str,
    content: bool = False,
    /,
    *,
    outcome: Finished | BaseException | None = None,
    seconds: float,
    **facts: Any,
) -> None:
    """Logs an answer's outcome: at INFO level when it came, at WARNING when it failed.

    Args:
        provider: The provider's name.
        text: The answer's text, or what came of it; written only if `content` is set.
        content: Whether to write the text.
        outcome: The final event, or the error.
        seconds: From the request's arrival to its end.
        **facts: What else is known, such as `request_id`.
    """
    from abstractllm.errors import AbstractLLMError

    level = logging.WARNING if isinstance(outcome, AbstractLLMError) else logging.INFO
    if not logger.isEnabledFor(level):
        return
    if isinstance(outcome, AbstractLLMError):
        result = f"error={outcome.reason}"
    elif isinstance(outcome, BaseException) or outcome is None:
        result = "cancelled"
    else:
        usage = outcome.usage
        result = f"finish_reason={outcome.finish_reason} input={usage.input_tokens} output={usage.output_tokens}"
    logger.log(level, "response provider=%s %s %s seconds=%.3f", provider, _facts(facts), result, seconds)
    if content:
        logger.debug("response %s text=%r", _facts(facts), text)


def setup_logging(level: int | str = logging.INFO) -> None:
    """Writes the program's log to standard error, one line a record; of other packages only what they warn of.

    Args:
        level: The least level that is written of this package's own records.
    """
    # An HTTP client's line for each request tells nothing that ours does not, and takes longer.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logger.setLevel(level)


def _facts(facts: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in facts.items())
