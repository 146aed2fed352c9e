"""A flat configuration, as the library's `get_config` and `set_config` have it <-> the contract's LlmConfig."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from abstractllm_api.v1 import config_pb2 as pb
from abstractllm_client import _check, _parameters
from abstractllm_client._enum_codec import QUANTIZATIONS
from abstractllm_client.errors import AbstractLLMError, ConfigurationError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PARAMETERS = tuple(name for name in _parameters.NAMES if name != "model")
_SETTINGS = (
    "model",
    "system_prompt",
    "timeout",
    "max_retries",
    "keep_alive",
    "quantization",
    "provider_options",
)


def set_config_request(llm: str, changes: Mapping[str, Any], etag: str, validate_only: bool) -> pb.SetConfigRequest:
    """Encodes changes with a mask of exactly the keys that are given.

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
        for name, value in flat.items():
            if name not in _SETTINGS:
                known = ", ".join((*_SETTINGS, *_PARAMETERS))
                raise ConfigurationError(
                    f"{name} cannot be set over the network; these can: {known}", field=name, limit=known
                )
            request.update_mask.paths.append(name)
            if value is not None:
                _set(request.config, name, value)
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


def decode(config: pb.LlmConfig) -> dict[str, Any]:
    """Decodes a configuration: flat, without unset keys."""
    found: dict[str, Any] = {}
    if config.model:
        found["model"] = config.model
    if config.HasField("system_prompt"):
        found["system_prompt"] = config.system_prompt
    if config.HasField("timeout"):
        found["timeout"] = config.timeout.ToNanoseconds() / 1e9
    if config.HasField("max_retries"):
        found["max_retries"] = config.max_retries
    if config.HasField("keep_alive"):
        found["keep_alive"] = config.keep_alive.ToNanoseconds() / 1e9
    if config.quantization:
        found["quantization"] = QUANTIZATIONS.decode(config.quantization)
    if config.provider_options.fields:
        found["provider_options"] = _whole(MessageToDict(config.provider_options))
    parameters = _parameters.decode(config.parameters)
    parameters.pop("model", None)
    return found | parameters


def _whole(value: Any) -> Any:
    """Gives whole numbers back as `int`: a Struct knows only doubles."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: _whole(entry) for key, entry in value.items()}
        case list():
            return [_whole(entry) for entry in value]
    return value


def _set(config: pb.LlmConfig, name: str, value: object) -> None:
    if name in ("model", "system_prompt"):
        setattr(config, name, _check.text(value, name))
    elif name == "max_retries":
        config.max_retries = _check.integer(value, name, 32)
    elif name == "quantization":
        config.quantization = QUANTIZATIONS.encode(value, name)
    elif name == "provider_options":
        if not isinstance(value, Mapping):
            raise _check.refuse(name, "must be a mapping", value)
        config.provider_options.SetInParent()
        config.provider_options.update(_check.plain(value, name))
    else:
        getattr(config, name).CopyFrom(_duration(value, name))


def _duration(value: object, name: str) -> Duration:
    """Reads `90`, `"90s"`, `"10m"` or `"1h"`."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match is None:
            raise _check.refuse(name, "must be a number of seconds, or a number with ms, s, m, h or d", value)
        value = float(match[1]) * _UNITS[match[2] or "s"]
    span = _check.seconds(value, name)
    if span > 604_800:
        raise _check.refuse(name, "must be at most 604800 seconds (a week)", value, limit=604_800)
    duration = Duration()
    duration.FromNanoseconds(round(span * 1e9))
    return duration
