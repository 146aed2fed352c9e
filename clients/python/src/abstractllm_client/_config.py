"""A flat configuration, as the library's `get_config` and `set_config` have it <-> the contract's LlmConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from abstractllm_api.v1 import config_pb2 as pb
from abstractllm_client import _check, _fields, _parameters
from abstractllm_client.errors import AbstractLLMError, ConfigurationError
from abstractllm_client.options import ConfigValues

_PARAMETERS = tuple(name for name in (*_parameters.NAMES, *_parameters.OTHER_NAMES) if name != "model")
_SETTINGS = tuple(field.name for field in pb.LlmConfig.DESCRIPTOR.fields if field.name != "parameters")


def set_config_request(llm: str, changes: Mapping[str, Any], etag: str, validate_only: bool) -> pb.SetConfigRequest:
    """Encodes changes, with a mask of exactly the keys that change.

    Args:
        llm: The LLM's name; empty for the server's default.
        changes: New values by key; `None` clears a key. Parameters stand beside the other keys, or under `parameters`.
        etag: The etag that the change is based on; empty to change it regardless.
        validate_only: Only check.

    Raises:
        ConfigurationError: For a key that cannot be set over the wire, or a value of the wrong type.
    """
    try:
        request = pb.SetConfigRequest(llm=_check.text(llm, "llm"), etag=_check.text(etag, "etag"))
        request.validate_only = validate_only
        flat = dict(changes)
        nested = flat.pop("parameters", None) or {}
        if not isinstance(nested, Mapping):
            raise _check.refuse("parameters", "must be a mapping of generation parameters", nested)
        parameters = {str(name): value for name, value in nested.items()}
        parameters |= {name: flat.pop(name) for name in _PARAMETERS if name in flat}
        parameters = _parameters.rename_keys(parameters)
        for name, value in flat.items():
            if name not in _SETTINGS:
                known = ", ".join((*_SETTINGS, *_PARAMETERS))
                raise ConfigurationError(
                    f"{name} cannot be set over the network; these can: {known}", field=name, limit=known
                )
            request.update_mask.paths.append(name)
            if value is not None:
                _fields.encode(request.config, name, value, name)
        request.update_mask.paths.extend(f"parameters.{name}" for name in parameters)
        if any(value is not None for value in parameters.values()):
            request.config.parameters.CopyFrom(_parameters.encode(parameters))
        return request
    except ConfigurationError:
        raise
    except AbstractLLMError as error:
        raise ConfigurationError(
            error.message, field=error.field, limit=error.limit, requested=error.requested
        ) from None


def decode(config: pb.LlmConfig) -> ConfigValues:
    """Decodes a configuration: flat, without unset keys."""
    values = {
        name: _fields.decode(config, name) for field, _ in config.ListFields() if (name := field.name) in _SETTINGS
    }
    if not values.get("provider_options"):
        values.pop("provider_options", None)
    values |= {name: value for name, value in _parameters.decode(config.parameters).items() if name != "model"}
    return cast(ConfigValues, values)
