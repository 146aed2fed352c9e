"""The error with which a replica could not start, within the text of Ray's own: Ray passes on the text alone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.ray.plain import error_of

__all__ = ["error_in", "load_failure"]

_PATTERN = re.compile(r"<abstractllm-error ([A-Za-z0-9+/=]+)>")


def load_failure(error: Mapping[str, Any]) -> str:
    """Returns the message of a failed start, which carries the error.

    Args:
        error: The error, as plain data.
    """
    told = {**error, "traceback": "", "attempts": []}
    data = base64.b64encode(json.dumps(told, default=str).encode()).decode()
    return f"{error['message']} <abstractllm-error {data}>"


def error_in(message: str) -> AbstractLLMError | None:
    """Returns the error that a message of Ray carries, if there is one."""
    for data in reversed(_PATTERN.findall("".join(message.split("\n")))):
        try:
            return error_of(json.loads(base64.b64decode(data)))
        except (KeyError, ValueError):  # Ray has cut it
            continue
    return None
