"""The configuration as a whole: read from the file and the flags, and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from abstractllm.errors import AbstractLLMError, ConfigurationError, UnsupportedParameterError
from abstractllm.validation import errors_from_validation
from abstractllm_server.settings.faults import ConfigurationFaultsError, at_line, line_of
from abstractllm_server.settings.keys import ServerSettings
from abstractllm_server.settings.llm_faults import MOST_FAULTS, llm_faults
from abstractllm_server.settings.variables import Variables
from abstractllm_server.settings.yaml_file import YamlFile, read_yaml

__all__ = ["load_settings", "locate"]

_CHECKED_AGAINST = {
    "default": ("llms",),
    "preload": ("llms",),
    "listen": ("tls", "tokens", "insecure"),
    "tls": ("listen",),
}
"""Keys whose rules hold other keys against them: where one of those is wrong, the rule cannot be checked."""


def load_settings(path: Path | None, flags: Mapping[str, Any]) -> ServerSettings:
    """Reads and checks the whole configuration, the LLMs of a file included.

    Args:
        path: The configuration file; none if absent.
        flags: Keys that override the file's; None values are passed over.

    Raises:
        ConfigurationError: Naming the file, the line and the key.
        ConfigurationFaultsError: For several faults, in the order of their lines.
    """
    file = read_yaml(path) if path else YamlFile()
    overrides = {key: value for key, value in flags.items() if value is not None}
    lines = {key: line for key, line in file.lines.items() if _top(key) not in overrides}
    variables = Variables(os.environ)
    values = variables.fill({key: value for key, value in file.values.items() if key not in overrides}) | overrides
    settings, faults = _check(values)
    llms = values.get("llms")
    if path is not None and isinstance(llms, dict):
        faults += llm_faults(llms)
    # What a key is to hold is not known if it stands twice, or its variable is not set.
    unknown = {fault.field for fault in (*variables.faults, *(fault for _, fault in file.faults))}
    unknown |= {re.sub(r"\[\d+\]$", "", field or "") for field in unknown}
    faults = variables.faults + [fault for fault in faults if fault.field not in unknown]
    numbered = [*file.faults, *((line_of(fault, lines), fault) for fault in faults)]
    if not numbered and settings is not None:
        return settings
    numbered.sort(key=lambda entry: entry[0] or 0)
    located = [
        # A fault of a flag, or of a variable that is a default, is not the file's.
        variables.hide(at_line(fault, None if _is_elsewhere(fault, line, overrides) else path, line))
        for line, fault in numbered[:MOST_FAULTS]
    ]
    raise located[0] if len(located) == 1 else ConfigurationFaultsError(located)


def _is_elsewhere(fault: ConfigurationError, line: int | None, overrides: Mapping[str, Any]) -> bool:
    """Returns whether a fault is of a flag, or of a variable of the environment that is a key's default."""
    field = fault.field or ""
    return _top(field) in overrides or (line is None and field.isupper())


def locate(error: ConfigurationError, path: Path | None) -> ConfigurationError:
    """Returns an error with the file and the line of its key, for faults that show when the settings are used."""
    if error.field and error.field.isupper():  # a variable of the environment
        return error
    if path is None or not path.is_file():  # a pipe cannot be read twice
        return at_line(error, path, None)
    try:
        lines = read_yaml(path).lines
    except ConfigurationError:  # it has been changed since
        lines = {}
    return at_line(error, path, line_of(error, lines))


def _top(field: str) -> str:
    """Returns the key at the top of the file that a field is below."""
    return re.split(r"[.[]", field)[0]


def _check(values: Mapping[str, Any]) -> tuple[ServerSettings | None, list[ConfigurationError]]:
    """Returns the settings, if they can be made, and what is wrong with them.

    The rules that concern several keys are checked even where a key is wrong, as if it were absent.
    """
    try:
        settings = ServerSettings.model_validate(values)
        return settings, list(settings.faults())
    except ValidationError as error:
        faults = [_as_configuration_error(fault) for fault in errors_from_validation(error)]
        wrong = {str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}
    right = {key: value for key, value in values.items() if key not in wrong}
    if isinstance(llms := values.get("llms"), dict):
        # One that is no mapping counts as an LLM all the same.
        right["llms"] = {name: line if isinstance(line, dict) else {} for name, line in llms.items()}
        wrong.discard("llms")
    for key, others in _CHECKED_AGAINST.items():
        if not wrong.isdisjoint(others):
            wrong.add(key)
    try:
        more = ServerSettings.model_validate(right).faults()
    except ValidationError:
        return None, faults
    return None, faults + [fault for fault in more if _top(fault.field or "") not in wrong]


def _as_configuration_error(error: AbstractLLMError) -> ConfigurationError:
    message = error.message.replace("is not a known parameter", "is not a known key")
    if isinstance(error, UnsupportedParameterError) and "." not in (error.field or ""):
        message += f"; known are {', '.join(sorted(ServerSettings.model_fields))}"
    return ConfigurationError(message, field=error.field, limit=error.limit, requested=error.requested)
