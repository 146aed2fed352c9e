"""The numbers in JSON schemas: those that keep each of their digits on the way to an answer."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any, NoReturn

from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError
from abstractllm.providers.huggingface.worker.structured.schema_references import Pointer

__all__ = [
    "MAX_EXACT",
    "SCHEMA_DECODER",
    "exact",
    "exact_bound",
    "exact_step",
    "integer_bound",
    "integer_pattern",
    "is_exact",
    "number_text",
    "parse_schema",
]

MAX_EXACT = 2**53
"""llguidance reads each number of a schema as one of 64 bits with a floating point, which beyond this skip integers."""
_SMALLEST = 1e-60
"""The smallest number above 0 that an answer may have in place of one that is only known to be above it."""
_MAX_EXPONENT = 308
_MAX_DIGITS = 60
"""Digits of the bound of a range of integers that is written as an expression."""
_MAX_PLACES = 80
"""Digits of a bound behind the point: llguidance nests an expression for each."""
_MAX_STEP = 2**32 - 1
"""The digits of a `multipleOf`, as llguidance keeps them."""


class _Decimal(float):
    """A number with a point or an exponent, with its digits as they are written."""

    def __new__(cls, text: str) -> _Decimal:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


SCHEMA_DECODER = json.JSONDecoder(parse_float=_Decimal, parse_constant=_refuse)
"""A reader of JSON that keeps the digits of numbers."""


def parse_schema(text: str) -> Any:
    """Reads a schema, with the digits of its numbers.

    Raises:
        ValueError: If it is not JSON.
    """
    return SCHEMA_DECODER.decode(text)


def exact(number: Any, pointer: Pointer) -> int | float:
    """Returns a number that an answer may have to repeat, an integer where it is one.

    Raises:
        SchemaError: If the answer would have other digits.
    """
    value = _decimal_of(number)
    if isinstance(number, float) and not math.isfinite(number):
        raise SchemaError(pointer, f"{_shorten(number)} is beyond the numbers of 64 bits with a floating point")
    if value == value.to_integral_value():
        if value.copy_abs() > MAX_EXACT:
            raise SchemaError(
                pointer,
                f"{_shorten(number)} is beyond 2**53, where local models do not tell an integer from its neighbours",
                limit=f"-{MAX_EXACT} to {MAX_EXACT}",
            )
        return int(value)
    if value != Decimal(repr(float(number))) or not _is_read_exactly(float(number)):
        raise SchemaError(pointer, f"{_shorten(number)} has more digits than local models keep of a number")
    return float(number)


def is_exact(number: int | float) -> bool:
    """Returns True if an answer can repeat a number."""
    try:
        exact(number, ())
    except SchemaError:
        return False
    return True


def number_text(number: int | float) -> str:
    """Returns a number as it is written in the schema."""
    return number.text if isinstance(number, _Decimal) else repr(number)


def integer_bound(number: Any, pointer: Pointer, inside: int) -> int:
    """Returns the bound of a range of integers, as a part of it, of any size.

    Raises:
        SchemaError: If it has too many digits.
    """
    value = _decimal_of(number)
    if not value.is_finite() or value.adjusted() > _MAX_DIGITS:
        raise SchemaError(pointer, f"{_shorten(number)} has more than {_MAX_DIGITS} digits")
    if value != value.to_integral_value():
        raise SchemaError(pointer, f"{_shorten(number)} has more digits than local models keep of a number")
    return int(value) + inside


def integer_pattern(least: int | None, most: int | None) -> str:
    """Returns an expression for the integers of a range.

    Args:
        least: The first; None if there is none.
        most: The last; None if there is none.

    Raises:
        SchemaError: If the range is empty.
    """
    if least is not None and most is not None and least > most:
        raise SchemaError((), f"it is unsatisfiable: minimum ({least}) is greater than maximum ({most})")
    parts = []
    if least is None or least < 0:
        parts.append(f"-({_naturals(max(1, -most) if most is not None else 1, None if least is None else -least)})")
    if most is None or most >= 0:
        parts.append(_naturals(max(0, least or 0), most))
    return f"({'|'.join(parts)})"


def _naturals(least: int, most: int | None) -> str:
    """Returns an expression for the integers of a range of 0 and above."""
    parts = []
    length = len(str(least))
    while most is None or length <= len(str(most)):
        first, last = max(least, 10 ** (length - 1) if length > 1 else 0), 10**length - 1
        if most is None and first == 10 ** (length - 1):
            parts.append(f"[1-9][0-9]{{{length - 1},}}")
            break
        parts.append(_same_length(str(first), str(last if most is None else min(last, most))))
        length += 1
    return f"({'|'.join(parts)})"


def _same_length(first: str, last: str) -> str:
    if not first or first == last:
        return first
    more = len(first) - 1
    if set(first) == {"0"} and set(last) == {"9"}:
        return f"[0-9]{{{more + 1}}}"
    if first[0] == last[0]:
        return first[0] + _same_length(first[1:], last[1:])
    parts, low, high = [], int(first[0]), int(last[0])
    if first[1:].strip("0"):
        parts.append(first[0] + _same_length(first[1:], "9" * more))
        low += 1
    if last[1:].strip("9"):
        parts.append(last[0] + _same_length("0" * more, last[1:]))
        high -= 1
    if low <= high:
        parts.append(f"[{low}-{high}]" + (f"[0-9]{{{more}}}" if more else ""))
    return f"({'|'.join(parts)})"


def exact_bound(number: Any, pointer: Pointer, inside: int = 0) -> int | float:
    """Returns the bound of a range, as a part of it.

    Args:
        number: The bound.
        pointer: Its place.
        inside: 1 or -1 for a bound that is not a part of the range, and has it above or below; 0 for one that is.

    Raises:
        SchemaError: If the range would have another one.
    """
    value = exact(number, pointer)
    if -Decimal(repr(value)).as_tuple().exponent > _MAX_PLACES:  # type: ignore[operator]  # it is finite
        raise SchemaError(pointer, f"{_shorten(number)} has more digits than {_MAX_PLACES} behind the point")
    if not inside:
        return value
    if isinstance(value, int):
        exact(value + inside, pointer)
    # llguidance takes 0 into a range from 0 to 0.5, and 1 into one from 1 to 1.5, where these are not a part of it.
    bound = math.nextafter(value, math.inf * inside) if value else _SMALLEST * inside
    while not _is_read_exactly(bound):
        bound = math.nextafter(bound, math.inf * inside)
    return bound


def exact_step(number: Any, pointer: Pointer) -> tuple[int | float, Decimal]:
    """Returns a `multipleOf`, and its exact value.

    Raises:
        SchemaError: If it is not above 0, or answers would be multiples of another number.
    """
    step = exact(number, pointer)
    if step <= 0:
        raise SchemaError(pointer, f"must be above 0, got {_shorten(number)}")
    # llguidance multiplies by ten until there is no fraction.
    digits, places = float(step), 0
    while digits != math.floor(digits) and digits <= _MAX_STEP:
        digits, places = digits * 10, places + 1
    value = _decimal_of(number)
    if digits > _MAX_STEP or Decimal(int(digits)).scaleb(-places) != value:
        raise SchemaError(pointer, f"multiples of {_shorten(number)} cannot be held to: it has too many digits")
    return step, value


def _is_read_exactly(number: float) -> bool:
    """Returns True if llguidance's reader of JSON gives the same number: it rounds the digits, then scales them."""
    _, digits, exponent = Decimal(repr(number)).as_tuple()
    scaled = float(int("".join(map(str, digits))))
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT:
        return False
    scale = float(f"1e{abs(exponent)}")
    return (scaled * scale if exponent > 0 else scaled / scale) == abs(number)


def _decimal_of(number: Any) -> Decimal:
    return Decimal(number.text if isinstance(number, _Decimal) else repr(number))


def _shorten(number: Any) -> str:
    text = number.text if isinstance(number, _Decimal) else str(number)
    return text if len(text) <= 60 else text[:57] + "..."
