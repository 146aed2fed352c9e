"""Checks of Python values that protobuf would refuse with a nameless error, or silently take for something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from abstractllm_client.errors import InvalidRequestError

_LARGEST_WHOLE_DOUBLE = 2**53


def refuse(field: str, rule: str, value: object, limit: object = None) -> InvalidRequestError:
    """Returns the error for a value that breaks a rule; it shows at most 80 characters of the value."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequestError(f"{field}: {rule}, got {shown}", field=field, limit=limit, requested=shown)


def text(value: object, field: str) -> str:
    """Takes a string that is whole Unicode text.

    Raises:
        InvalidRequestError: If it is not a string, or holds a lone surrogate, which no encoding can carry.
    """
    if not isinstance(value, str):
        raise refuse(field, "must be a string", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{field} holds a lone surrogate at character {error.start}, which is not valid Unicode", field=field
        ) from None
    return str(value)


def integer(value: object, field: str, bits: int) -> int:
    """Takes a whole number that fits a signed integer of `bits` bits.

    Raises:
        InvalidRequestError: If it is a `bool` or not an `int`, or does not fit.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise refuse(field, "must be a whole number", value)
    limit = 2 ** (bits - 1)
    if not -limit <= value < limit:
        raise refuse(field, f"must be from {-limit} to {limit - 1}", value, limit=f"from {-limit} to {limit - 1}")
    return value


def number(value: object, field: str) -> float:
    """Takes a number.

    Raises:
        InvalidRequestError: If it is a `bool` or neither `int` nor `float`, or not finite.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refuse(field, "must be a number", value)
    try:
        double = float(value)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise refuse(field, "must be a finite number", value, limit="finite")
    return double


def seconds(value: object, field: str) -> float:
    """Takes a span in seconds.

    Raises:
        InvalidRequestError: If it is not a finite number above 0.
    """
    span = number(value, field)
    if span <= 0:
        raise refuse(field, "must be greater than 0 seconds", value, limit="greater than 0")
    return span


def plain(value: object, field: str) -> Any:
    """Takes a value that a protobuf Struct can hold without loss: None, bool, number, string, mapping, list.

    Raises:
        InvalidRequestError: For an entry, which it names, of another type, or a whole number beyond 2^53.
    """
    match value:
        case None | bool():
            return value
        case str():
            return text(value, field)
        case int() | float():
            if isinstance(value, int) and abs(value) > _LARGEST_WHOLE_DOUBLE:
                raise refuse(field, "must be at most 2^53, or else a string", value, limit="2^53")
            return number(value, field)
        case Mapping():
            return {text(key, field): plain(entry, f"{field}.{key}") for key, entry in value.items()}
        case list() | tuple():
            return [plain(entry, f"{field}[{index}]") for index, entry in enumerate(value)]
    raise refuse(field, "must be None, a bool, a number, a string, a mapping or a list", value)
