"""The configuration of one LLM: an entry under `llms` in the configuration file, or the arguments of `create_llm`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Self, Union, cast, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from abstractllm._generated.config_values import ConfigValues
from abstractllm.errors import AbstractLLMError, ConfigurationError, InvalidRequestError, UnsupportedParameterError
from abstractllm.parameters import GENERATION_PARAMETERS, GenerationParameters, parse_parameters
from abstractllm.validation import OTHER_NAMES, error_from_validation, is_unset, rename_keys

__all__ = ["Bytes", "ConfigModel", "ConfigValues", "LLMConfig", "Seconds", "plain_number"]

REDACTED = "**********"
_DOUBTFUL_NUMBER = re.compile(r"\s*[-+]?(0[0-9]|[0-9.]*(_|[^\x00-\x7f]))")
_SIZES = {"": 1, "B": 1} | {
    f"{prefix}{kind}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for kind, base in (("B", 1000), ("iB", 1024))
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _parse_seconds(value: object) -> object:
    """Reads `90`, `"90s"`, `"10m"` or `"1h"` as seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match is None:
            raise ValueError("must be a number of seconds, or a number with ms, s, m, h or d")
        return float(match[1]) * _UNITS[match[2] or "s"]
    return value


Seconds = Annotated[float, BeforeValidator(_parse_seconds), Field(gt=0, le=604_800)]
"""A span in seconds, at most a week; text such as `10m` is read too."""


def _parse_bytes(value: object) -> object:
    """Reads `4096`, `"500MB"` or `"8GiB"` as bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)  # infinity is no size
        if match is None or match[2] not in _SIZES:
            raise ValueError(f"must be a number of bytes, or a number with one of {', '.join(filter(None, _SIZES))}")
        return round(float(match[1]) * _SIZES[match[2]])
    return value


Bytes = Annotated[int, BeforeValidator(_parse_bytes), Field(ge=1, le=1 << 60)]
"""A number of bytes; text such as `8GiB` is read too."""


def plain_number(value: object) -> object:
    """Returns a value that is to be a number, unless Python alone takes it for one; see `ConfigModel`.

    Raises:
        ValueError: If it is true or false, or a text such as 017 or 1_000.
    """
    if isinstance(value, bool):
        raise ValueError("must be a number")
    if isinstance(value, str) and _DOUBTFUL_NUMBER.match(value) is not None:
        raise ValueError("must be a number in plain decimal digits")
    return value


class ConfigModel(BaseModel):
    """The keys of a configuration: none is taken that is not known, and no value that is not of its kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_other_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses what Python takes for a number where one is expected, and others do not, or take for another one.

        That is true and false (1 and 0), and texts such as 017 (15 where octal), 1_000 and digits of other scripts.
        """
        if info.field_name is not None:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if kinds.isdisjoint((bool, str)) and not kinds.isdisjoint((int, float)):
                return plain_number(value)
        return value


def _kinds(annotation: Any) -> set[Any]:
    """Returns the types that an annotation allows for a value itself."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _kinds(part)}
    return {annotation}


class LLMConfig(ConfigModel):
    """The configuration of every LLM. Providers add keys in a subclass.

    Generation parameters may stand under `parameters` or, as in `create_llm("openai", temperature=0)`, beside the other
    keys; both mean the LLM's defaults for requests that do not set them.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)] = ""
    models: tuple[str, ...] = ()
    """Further models that a request may name in its `model` parameter."""
    system_prompt: str | None = None
    parameters: GenerationParameters = Field(default_factory=GenerationParameters)
    timeout: Seconds | None = None
    """Seconds that an answer may take at most; a request may allow it less."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 0
    """The number of times that a request is tried again, if it failed before its first event and may be retried."""
    provider_options: dict[str, Any] = Field(default_factory=dict)
    log_content: bool = False
    """Write prompts and answers to the log at DEBUG level."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Reads a configuration from a mapping, which is not kept.

        Raises:
            ConfigurationError: Naming the key that is unknown, malformed or out of range.
        """
        return cls._build(cls._nest(copy.deepcopy(dict(values))))

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Returns this configuration with `changes` merged in; `None`, an empty list and an empty mapping clear a key.

        Raises:
            ConfigurationError: As `parse` does.
        """
        nested = {name: self._known(name, value) for name, value in self._nest(copy.deepcopy(dict(changes))).items()}
        values: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        values["parameters"] = self.parameters.set_fields() | nested.pop("parameters", {})
        values |= nested
        return self._build({name: value for name, value in values.items() if not is_unset(value)})

    def _known(self, name: str, value: Any) -> Any:
        """Returns a changed value, in which what `public` shows instead of a secret stands for the secret itself."""
        present = getattr(self, name, None)
        if isinstance(present, SecretStr) and value == REDACTED:
            return present
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            secrets = {key: item for key, item in present.items() if isinstance(item, SecretStr)}
            return {key: secrets.get(key, item) if item == REDACTED else item for key, item in value.items()}
        return value

    def public(self) -> ConfigValues:
        """Returns a deep copy as plain values, flat, without unset keys, secrets replaced by asterisks."""
        values: dict[str, Any] = {}
        for name, value in self.model_copy(deep=True):
            if name == "parameters":
                continue
            if isinstance(value, SecretStr):
                value = REDACTED
            if isinstance(value, dict):
                value = {key: REDACTED if isinstance(item, SecretStr) else item for key, item in value.items()}
            if not is_unset(value):
                values[name] = list(value) if isinstance(value, tuple) else value
        parameters = self.parameters.set_fields()
        parameters.pop("model", None)
        values |= {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
        return cast(ConfigValues, values)

    @classmethod
    def _nest(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Moves generation parameters that stand beside the other keys under `parameters`."""
        nested = {str(key): value for key, value in values.items()}
        parameters = nested.pop("parameters", None)
        if is_unset(parameters):
            parameters = {}
        if isinstance(parameters, GenerationParameters):
            parameters = parameters.set_fields()
        if not isinstance(parameters, Mapping):
            raise ConfigurationError("parameters must be a mapping of generation parameters", field="parameters")
        names = (*GENERATION_PARAMETERS, *OTHER_NAMES)
        flat = {name: nested.pop(name) for name in names if name in nested and name != "model"}
        if flat or parameters:
            try:
                renamed = rename_keys({**parameters, **flat})
                nested["parameters"] = {name: _typed(name, value) for name, value in renamed.items()}
            except InvalidRequestError as error:
                raise _as_configuration_error(error) from None
        return nested

    @classmethod
    def _build(cls, values: dict[str, Any]) -> Self:
        # Not so None: `timeout: null` is no limit, where the default is one.
        values = {name: value for name, value in values.items() if value is None or not is_unset(value)}
        try:
            if "model" in values.get("parameters", ()):
                raise InvalidRequestError("parameters.model: set model itself", field="parameters.model")
            if "parameters" in values:
                values = values | {"parameters": parse_parameters(values["parameters"])}
            return cls.model_validate(values)
        except ValidationError as error:
            secrets = [
                name
                for name, field in cls.model_fields.items()
                if not field.repr or "SecretStr" in str(field.annotation)
            ]
            fault = error_from_validation(error, secrets=secrets)
            if isinstance(fault, UnsupportedParameterError):
                fault.message += f"; known are {', '.join(cls.known_keys())}"
            raise _as_configuration_error(fault) from None
        except InvalidRequestError as error:
            raise _as_configuration_error(error) from None

    @classmethod
    def known_keys(cls) -> list[str]:
        """Returns every key that a configuration of this kind may hold, in alphabetical order."""
        return sorted({*cls.model_fields, *GENERATION_PARAMETERS, *OTHER_NAMES})


def _typed(name: str, value: Any) -> Any:
    """Returns a text as the number that it is, where a generation parameter is one: variables hold nothing but text."""
    field = GenerationParameters.model_fields.get(name)
    if not isinstance(value, str) or field is None:
        return value
    kinds = _kinds(field.annotation)
    # Python makes no int of more than 4,300 digits.
    for kind, pattern in ((int, r"[-+]?[0-9]{1,4000}"), (float, r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")):
        if kind in kinds and re.fullmatch(pattern, value) and _DOUBTFUL_NUMBER.match(value) is None:
            return kind(value)
    return value


def _as_configuration_error(error: AbstractLLMError) -> ConfigurationError:
    return ConfigurationError(error.message, field=error.field, limit=error.limit, requested=error.requested)
