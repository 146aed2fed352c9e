"""Reading the values of a provider's JSON, which may be anything; what cannot be read raises what Python raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm.types import TokenLogprob, TopLogprob
from abstractllm.validation import replace_surrogates

__all__ = ["read_count", "read_logprob", "read_optional_text", "read_text"]

_UNKNOWN_TOKEN = -1
"""The id of a token of which an API gives the text alone."""
_MOST_TOKENS = 10**12


def read_text(value: object) -> str:
    """Returns a text, without the surrogates that JSON may hold.

    Raises:
        TypeError: If it is not a string.
    """
    if not isinstance(value, str):
        raise TypeError(f"text is expected, not {type(value).__name__}")
    return replace_surrogates(value)


def read_optional_text(value: object) -> str:
    """Returns a text as `read_text` does; an empty one for None.

    Raises:
        TypeError: If it is neither a string nor None.
    """
    return "" if value is None else read_text(value)


def read_count(value: object) -> int | None:
    """Returns a number of tokens; None for anything else."""
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else None


def read_logprob(token: Mapping[str, Any]) -> TokenLogprob:
    """Returns a token's log-probability and those of its alternatives, from the shape that OpenAI's API gave them.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: If it has another shape.
    """
    top = tuple(TopLogprob(*_read_token(other)) for other in token.get("top_logprobs") or ())
    return TokenLogprob(*_read_token(token), top)


def _read_token(token: Mapping[str, Any]) -> tuple[int, str, bytes, float]:
    text, raw = read_text(token["token"]), token.get("bytes")
    return _UNKNOWN_TOKEN, text, text.encode() if raw is None else bytes(raw), float(token["logprob"])
