"""Checking the settings that a request makes by an API's own names for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm.errors import InvalidRequestError

__all__ = ["checked_options"]

_KIND_NAMES: dict[type, str] = {
    Mapping: "an object",
    bool: "true or false",
    float: "a number",
    int: "an integer",
    str: "text",
}


def checked_options(options: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Returns a copy of a request's provider options.

    Args:
        options: The options, all of them known.
        kinds: The types that each may have.

    Raises:
        InvalidRequestError: For one of another type.
    """
    for name, value in options.items():
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            wish = " or ".join(_KIND_NAMES[kind] for kind in kinds[name])
            raise InvalidRequestError(
                f"provider_options.{name}: must be {wish}, got {value!r:.80}",
                field=f"provider_options.{name}",
                limit=wish,
                requested=f"{value!r:.80}",
            )
    return dict(options)
