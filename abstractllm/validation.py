"""Checks of what callers hand in, and the errors that name what is wrong with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from abstractllm.errors import AbstractLLMError, InvalidRequestError, UnsupportedParameterError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "OTHER_NAMES",
    "at_most",
    "check_text",
    "error_from_validation",
    "errors_from_validation",
    "is_unset",
    "json_object",
    "json_object_text",
    "rename_keys",
    "replace_surrogates",
    "require",
]

OTHER_NAMES = {"max_new_tokens": "max_tokens"}
"""Other names of generation parameters, for callers who know them by these."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_VALUE = 80
"""Characters that a message repeats of a value at most."""
_INVALID_JSON = "INVALID_JSON"
_DEEPEST_OBJECT = 100
"""Levels of nesting up to which a JSON object is passed on."""


def require(holds: bool, field: str, rule: str, *, limit: object = None, got: object) -> None:
    """Checks that a rule holds.

    Args:
        holds: True if it does.
        field: The path of the field that the rule is about, such as `chat.messages[0].role`.
        rule: The rule, in words that go on after the field, such as `must not be empty`.
        limit: The value that the field may have at most or at least; the rule itself if absent.
        got: The value that it has.

    Raises:
        InvalidRequestError: Naming the field, the rule and the value, if the rule does not hold.
    """
    if not holds:
        raise InvalidRequestError(f"{field}: {rule}, got {got}", field=field, limit=limit or rule, requested=str(got))


def at_most(count: int, limit: int, field: str, unit: str) -> None:
    """Checks a length or a number of items.

    Raises:
        InvalidRequestError: Naming the field, the limit and the count.
    """
    require(count <= limit, field, f"must have at most {limit} {unit}", limit=limit, got=f"{count} {unit}")


def check_text(text: str, field: str) -> None:
    """Checks that a text can be sent as UTF-8.

    Raises:
        InvalidRequestError: If it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{field} holds a lone surrogate at character {error.start}, which is not valid Unicode", field=field
        ) from None


def replace_surrogates(text: str) -> str:
    """Puts pairs of surrogates together, and replaces lone ones, which no UTF-8 text can hold, by U+FFFD.

    JSON may hold both, and file names lone ones.
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_unset(value: object) -> bool:
    """Tells whether a value counts as unset: None, and every empty list, tuple and mapping."""
    return value is None or (isinstance(value, list | tuple | Mapping) and not value)


def json_object(text: str) -> dict[str, Any]:
    """Returns the JSON object that a text is, such as a tool call's arguments.

    A model may write arguments that are cut off, or no object, while every API and template takes an object: such a
    text becomes the value of the key `INVALID_JSON`. So does one with numbers that JSON does not have, or nested too
    deep.
    """
    value = _read_object(text)
    return {_INVALID_JSON: replace_surrogates(text)} if value is None else value


def json_object_text(text: str) -> str:
    """Returns the text itself, if it is a JSON object; else the one that `json_object` makes of it."""
    return json.dumps(json_object(text)) if _read_object(text) is None or not text.strip() else text


def _read_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not _is_shallow(value):
        return None
    return _with_unicode(value) if "\\u" in text else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number beyond those of double precision")
    return number


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST_OBJECT):
        if not level:
            return True
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
    return not level


def _with_unicode(value: Any) -> Any:
    """Returns a JSON value without the lone surrogates that its escapes may spell."""
    match value:
        case str():
            return replace_surrogates(value)
        case dict():
            return {replace_surrogates(key): _with_unicode(inner) for key, inner in value.items()}
        case list():
            return [_with_unicode(inner) for inner in value]
    return value


def rename_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values in which each generation parameter has its own name, whichever of its names it had.

    Raises:
        InvalidRequestError: If a parameter has two names with different values.
    """
    renamed = dict(values)
    for other, name in OTHER_NAMES.items():
        if other in renamed:
            value = renamed.pop(other)
            if value is None or renamed.get(name) is None:  # None is no value, and contradicts none
                renamed[name] = renamed.get(name) if value is None else value
            elif renamed[name] != value:
                raise InvalidRequestError(
                    f"parameters.{other}: is another name of {name}, which is {renamed[name]!r:.80}, got {value!r:.80}",
                    field=f"parameters.{other}",
                    limit=renamed[name],
                    requested=value,
                )
    return renamed


@dataclass(frozen=True, slots=True)
class _Rule:
    """The rule behind one type of pydantic's faults."""

    limit: str
    """The limit in words, with the names of pydantic's context in braces."""
    counted: str = ""
    """The unit of which the value has too few or too many; empty where the value itself is too small or too large."""


_RULES = {
    "greater_than_equal": _Rule("at least {ge}"),
    "greater_than": _Rule("greater than {gt}"),
    "less_than_equal": _Rule("at most {le}"),
    "finite_number": _Rule("finite"),
    "string_too_short": _Rule("at least {min_length} characters", "characters"),
    "string_too_long": _Rule("at most {max_length} characters", "characters"),
    "too_short": _Rule("at least {min_length} items", "items"),
    "too_long": _Rule("at most {max_length} items", "items"),
}


def error_from_validation(error: ValidationError, path: str = "", secrets: Collection[str] = ()) -> AbstractLLMError:
    """Turns the first fault of pydantic's report into an error; see `errors_from_validation`."""
    return errors_from_validation(error, path, secrets)[0]


def errors_from_validation(
    error: ValidationError, path: str = "", secrets: Collection[str] = ()
) -> list[AbstractLLMError]:
    """Turns each fault of pydantic's report into an error that names the field, the limit and the value.

    Args:
        error: The exception that pydantic raised.
        path: The path of the object that was checked, such as `parameters`.
        secrets: Top-level keys whose value must not be repeated.

    Returns:
        An UnsupportedParameterError for an unknown key, an InvalidRequestError for the rest.
    """
    return [_error_from_fault(fault, path, secrets) for fault in error.errors(include_url=False)]


def _error_from_fault(fault: ErrorDetails, path: str, secrets: Collection[str]) -> AbstractLLMError:
    field = _field_path(path, fault["loc"])
    if fault["type"] == "extra_forbidden":
        return UnsupportedParameterError(f"{field} is not a known parameter", field=field)
    rule = _RULES.get(fault["type"])
    if rule is not None:
        limit = rule.limit.format(**{name: _without_fraction(value) for name, value in fault.get("ctx", {}).items()})
        demand = f"must {'have' if rule.counted else 'be'} {limit}"
    elif fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float):
        limit, demand = "text", "must be text (in a file, put it in quotes)"
    else:
        message = fault["msg"].removeprefix("Value error, ")
        limit, demand = None, message[:1].lower() + message[1:]
    is_secret = bool(fault["loc"]) and fault["loc"][0] in secrets
    value = _describe(fault["input"], rule.counted if rule else "", is_secret)
    return InvalidRequestError(f"{field}: {demand}, got {value}", field=field, limit=limit, requested=value)


def _field_path(path: str, steps: Sequence[int | str]) -> str:
    """Joins a path and pydantic's steps from there, such as `parameters` and `("stop", 0)` to `parameters.stop[0]`."""
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step != "[key]":
            path += f".{step}" if path else step
    return path


def _describe(value: Any, counted: str, is_secret: bool) -> str:
    """Says in a message what a value is: its length where that is wrong, else its text, shortened."""
    if counted:
        return f"{len(value)} {counted}"
    if is_secret:
        return "a value that is not shown"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _without_fraction(value: object) -> object:
    """Turns `2.0` into `2`, as people write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
