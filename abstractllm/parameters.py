"""Generation parameters and their limits, and how a bad value becomes an error that names it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from abstractllm._generated.parameters import MOST_ITEMS, ParameterFields
from abstractllm.errors import AbstractLLMError, InvalidRequestError, UnsupportedParameterError

__all__ = ["GENERATION_PARAMETERS", "MOST_ITEMS", "GenerationParameters", "error_from_validation", "parse_parameters"]

MAX_STOPS = MOST_ITEMS["stop"]
MAX_LOGIT_BIASES = MOST_ITEMS["logit_bias"]


class GenerationParameters(ParameterFields):
    """The sampling settings of one request, and its limits. `None` means the LLM's own default, never zero.

    Sampling follows the usual definitions: `temperature` divides the logits (0 is greedy); `top_k`, `top_p` (nucleus)
    and `min_p` cut the distribution's tail; `presence_penalty` and `frequency_penalty` are subtracted from the logits
    of tokens already generated (https://platform.openai.com/docs/api-reference); `repetition_penalty` divides or
    multiplies those of all tokens seen (CTRL, https://arxiv.org/abs/1909.05858).

    The fields come from the contract: each field's `description` is its documentation, its metadata are its bounds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    def set_fields(self) -> dict[str, Any]:
        """The parameters that are set, by name."""
        return {name: value for name, value in self if value is not None}

    def over(self, defaults: GenerationParameters) -> GenerationParameters:
        """These parameters, with `defaults` where they are unset."""
        if not (values := defaults.set_fields()):
            return self
        return self.model_copy(update={name: value for name, value in values.items() if getattr(self, name) is None})


GENERATION_PARAMETERS: tuple[str, ...] = tuple(GenerationParameters.model_fields)
"""The names of all generation parameters, in the contract's order."""


def parse_parameters(values: Mapping[str, Any], path: str = "parameters") -> GenerationParameters:
    """Checks generation parameters.

    Args:
        values: Values by name; `None` counts as unset. A single string for `stop` counts as a list of one.
        path: What errors put before a field's name.

    Raises:
        UnsupportedParameterError: For a name that is no generation parameter.
        InvalidRequestError: For a value of the wrong type or out of range; `field`, `limit` and `requested` say which.
    """
    values = {str(name): value for name, value in values.items() if value is not None}
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    try:
        return GenerationParameters.model_validate(values)
    except ValidationError as error:
        raise error_from_validation(error, path) from None


_LIMITS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "greater than {gt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "finite_number": "finite",
}


def error_from_validation(error: ValidationError, path: str = "", secrets: Collection[str] = ()) -> AbstractLLMError:
    """Turns pydantic's report into one error that names the field, the limit and the value.

    Args:
        error: What pydantic raised.
        path: The path of the object that was checked, such as `parameters`.
        secrets: Top-level keys whose value must not be repeated.

    Returns:
        An UnsupportedParameterError for an unknown key, an InvalidRequestError for the rest.
    """
    fault = error.errors(include_url=False)[0]
    context = {key: _plain(value) for key, value in fault.get("ctx", {}).items()}
    field = path
    for step in fault["loc"]:
        if isinstance(step, int):
            field += f"[{step}]"
        elif step != "[key]":
            field += f".{step}" if field else str(step)
    if fault["type"] == "extra_forbidden":
        return UnsupportedParameterError(f"{field} is not a known parameter", field=field)
    rule = _LIMITS.get(fault["type"])
    limit = rule.format(**context) if rule else None
    value = fault["input"]
    shown = f"{len(value)} items" if "items" in (limit or "") else _shown(value)
    if fault["loc"] and fault["loc"][0] in secrets:
        shown = "a value that is not shown"
    if limit and "characters" in limit:
        shown = f"{len(value)} characters"
    wish = f"must be {limit}" if limit and "characters" not in limit and "items" not in limit else None
    wish = wish or (f"must have {limit}" if limit else fault["msg"][:1].lower() + fault["msg"][1:])
    return InvalidRequestError(f"{field}: {wish}, got {shown}", field=field, limit=limit, requested=shown)


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
