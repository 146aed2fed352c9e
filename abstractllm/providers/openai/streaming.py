"""Servers that cannot stream, or do not know `stream_options`."""

from __future__ import annotations

import re

from abstractllm.providers.hosted import import_sdk

__all__ = ["refused_streaming"]

_STATUSES = (400, 403, 404, 422, 501)
_CANNOT_STREAM = re.compile(
    r"""
    '?stream'?\ does\ not\ support\ true
    | stream(?:ing)?(?:\ (?:mode|requests?|responses?))?(?:\ (?:is|are))?\ not\ (?:yet\ )?
      (?:supported|allowed|available|implemented)
    | (?:does\ not|doesn't|cannot|can't|not)\ (?:yet\ )?(?:support|do)\ stream(?:ing)?\b
    | (?:not|n't)\ (?:yet\ )?support.{0,40}\ (?:in|with|when|while)\ (?:using\ )?stream
    | only\ (?:supports?|allows?)\ (?:non[- ]stream|stream\W{0,3}false)
    """,
    re.I | re.X,
)


def refused_streaming(error: Exception) -> str | None:
    """Returns the field that a server refuses because it cannot stream, or knows no options of streaming.

    Args:
        error: Any error of the SDK.

    Returns:
        `stream_options`, `stream`, or None where the error says neither.
    """
    if not isinstance(error, import_sdk("openai").APIStatusError) or error.status_code not in _STATUSES:
        return None
    words = f"{error.message} {error.body}"[:10_000]
    if re.search(r"stream_options|include_usage", words):
        return "stream_options"
    return "stream" if _CANNOT_STREAM.search(words) else None
