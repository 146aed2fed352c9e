"""Generation parameters and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError

from abstractllm._generated.parameters import MOST_ITEMS, ParameterFields
from abstractllm.validation import error_from_validation, is_unset

__all__ = ["GENERATION_PARAMETERS", "MOST_ITEMS", "GenerationParameters", "parse_parameters"]


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
        """The parameters that are set, by name; an empty list or map is not."""
        return {name: value for name, value in self.__dict__.items() if value is not None and not is_unset(value)}

    def over(self, defaults: GenerationParameters) -> GenerationParameters:
        """These parameters, with `defaults` where they are unset."""
        if not (values := defaults.set_fields()):
            return self
        return self.model_copy(update={name: value for name, value in values.items() if is_unset(getattr(self, name))})


GENERATION_PARAMETERS: tuple[str, ...] = tuple(GenerationParameters.model_fields)
"""The names of all generation parameters, in the contract's order."""


def parse_parameters(values: Mapping[str, Any], path: str = "parameters") -> GenerationParameters:
    """Checks generation parameters.

    Args:
        values: Values by name; `None`, an empty list and an empty map count as unset. A single string for `stop` counts
            as a list of one.
        path: What errors put before a field's name.

    Raises:
        UnsupportedParameterError: For a name that is no generation parameter.
        InvalidRequestError: For a value of the wrong type or out of range; `field`, `limit` and `requested` say which.
    """
    values = {str(name): value for name, value in values.items() if not is_unset(value)}
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    try:
        return GenerationParameters.model_validate(values)
    except ValidationError as error:
        raise error_from_validation(error, path) from None
