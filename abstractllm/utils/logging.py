"""Logging for providers and programs.

The package's logger is named `abstractllm` and stays silent until the program configures logging, for example with
`setup_logging`. Every request that goes through an LLM is logged already: ids, tokens, times and outcomes always, its
content only where the configuration says `log_content`. `log_request` and `log_response` are for code that asks a
provider by itself; they write the content, at DEBUG level.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from abstractllm.utils.log_lines import JsonFormatter, TextFormatter

__all__ = ["log_request", "log_response", "logger", "setup_logging"]

logger = logging.getLogger("abstractllm")
logger.addHandler(logging.NullHandler())

_SECRETS = ("api_key", "extra_headers")


def log_request(provider: str, prompt: str, parameters: Mapping[str, Any]) -> None:
    """Logs a request at DEBUG level, its prompt included.

    Example:
        log_request("openai", "Hello", {"model": "gpt-6", "temperature": 0})

    Args:
        provider: The provider's name.
        prompt: The prompt.
        parameters: The parameters by name; `api_key` and `extra_headers` among them are not written.
    """
    shown = {str(name): "**********" if name in _SECRETS else value for name, value in parameters.items()}
    logger.debug("request provider=%s parameters=%s prompt=%r", provider, shown, prompt)


def log_response(provider: str, response: str) -> None:
    """Logs a response at DEBUG level, its text included.

    Args:
        provider: The provider's name.
        response: The response's text.
    """
    logger.debug("response provider=%s text=%r", provider, response)


def setup_logging(level: int | str = logging.INFO, log_format: Literal["text", "json"] = "text") -> None:
    r"""Writes the program's log to standard error, one line a record; of other packages only warnings and errors.

    Line ends and control characters within a record are written as escapes such as `\n`, so that nothing that a caller
    or a model says can look like a record of its own. A program that has set up its log already keeps it as it is.

    Args:
        level: The least level that is written of this package's own records.
        log_format: `text` for people, or `json`: an object with `time`, `level`, `logger`, `message` and the record's
            named values.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # An HTTP client's line for each request tells nothing that ours does not, and takes longer.
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logger.setLevel(level)
