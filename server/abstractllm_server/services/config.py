"""ConfigService: an LLM's configuration, read and changed while the server runs."""

from __future__ import annotations

import hashlib
from typing import Any

from abstractllm.config import LLMConfig
from abstractllm.errors import (
    ConfigurationError,
    InvalidRequestError,
    ModelNotFoundError,
    StaleConfigError,
    UnsupportedParameterError,
)
from abstractllm.interface import AbstractLLMInterface
from abstractllm.parameters import GENERATION_PARAMETERS
from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import config_pb2 as pb
from abstractllm_api.v1 import config_pb2_grpc
from abstractllm_server.convert.fields import read_fields, to_message
from abstractllm_server.telemetry.current import note_administration

__all__ = ["ConfigServicer"]

_FIELDS = tuple(field.name for field in pb.LlmConfig.DESCRIPTOR.fields)
_MOST_NAMES = 40
_TRIES = 5
"""Times that a change is tried which is to be made regardless of those that other servers make."""
_PARAMETERS = tuple(name for name in GENERATION_PARAMETERS if name != "model")


class ConfigServicer(config_pb2_grpc.ConfigServiceServicer):
    """Reads and changes configurations in this server's memory: a restart, or a reload, returns to the file."""

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry

    async def GetConfig(self, request: pb.GetConfigRequest, context: Any) -> pb.GetConfigResponse:
        """Reads an LLM's configuration."""
        note_administration(request.llm or self._registry.default)
        config = _encode(self._registry[request.llm].config)
        return pb.GetConfigResponse(config=config, etag=_etag(config))

    async def SetConfig(self, request: pb.SetConfigRequest, context: Any) -> pb.SetConfigResponse:
        """Changes an LLM's configuration from the next request on.

        Where the model of a loaded LLM changes, the answer comes when the new one is loaded and in force; a caller who
        leaves before has changed nothing.
        """
        llm_name = request.llm or self._registry.default
        note_administration(llm_name, keys=_keys(request), validate_only=request.validate_only)
        async with self._registry.changing(request.llm) as llm:
            current = _etag(_encode(llm.config))
            if request.etag and request.etag != current:
                raise StaleConfigError(
                    "etag: the configuration has changed since it was read",
                    field="etag",
                    limit=current,
                    requested=request.etag[:80],
                    llm=llm.name,
                )
            changes = _changes(request)
            if "model" in changes:
                changes["model"] = self._model(llm, changes["model"])
                changes["models"] = self._models(llm)
            try:
                preview = await llm.preview(changes)
                await _check_support(llm, preview)
                if not request.validate_only:
                    preview = await _change(llm, changes, preview, tries=1 if request.etag else _TRIES)
            except ConfigurationError as error:
                raise InvalidRequestError(
                    f"config.{error.message}",
                    field=f"config.{error.field}" if error.field else "config",
                    limit=error.limit,
                    requested=error.requested,
                ) from error
        config = _encode(preview)
        return pb.SetConfigResponse(config=config, etag=_etag(config))

    def _models(self, llm: AbstractLLMInterface) -> tuple[str, ...]:
        """Returns the models that the configuration file lists for an LLM."""
        config = self._registry.configured(llm.name)
        return (config.model, *config.models)

    def _model(self, llm: AbstractLLMInterface, model: str | None) -> str:
        """Returns the model to change to: the file's first one if it is cleared; refuses one that the file lacks."""
        allowed = self._models(llm)
        if model is None:
            return allowed[0]
        if model not in allowed:
            listed = ", ".join(dict.fromkeys(allowed))
            raise ModelNotFoundError(
                f"config.model: the configuration file lists only {listed}, got {model[:80]!r}",
                field="config.model",
                limit=listed,
                requested=model[:80],
                llm=llm.name,
            )
        return model


async def _check_support(llm: AbstractLLMInterface, config: LLMConfig) -> None:
    """Refuses defaults that the LLM would refuse in every request, whose caller could do nothing about them."""
    capabilities = await llm.capabilities(config, config.model)
    support = {f"config.parameters.{name}": name in capabilities.parameters for name in config.parameters.set_fields()}
    support |= {
        f"config.provider_options.{key}": key in capabilities.provider_options for key in config.provider_options
    }
    for field, is_supported in support.items():
        if not is_supported:
            raise UnsupportedParameterError(
                f"{field}: LLM {llm.name!r} ({llm.provider}) does not take it", field=field, llm=llm.name
            )


def _encode(config: LLMConfig) -> pb.LlmConfig:
    """Encodes the keys of a configuration that are fields of the contract; empty ones stay absent."""
    values = {name: getattr(config, name, None) for name in _FIELDS}
    values["parameters"] = config.parameters.set_fields()
    return to_message(pb.LlmConfig, {name: value for name, value in values.items() if value != {}})


async def _change(llm: AbstractLLMInterface, changes: dict[str, Any], preview: LLMConfig, tries: int) -> LLMConfig:
    """Changes a configuration; where another server changes it at the same time, upon what that one has made.

    Returns:
        The configuration as it is then.
    """
    for left in reversed(range(tries)):
        try:
            await llm.set_config_async(changes)
        except StaleConfigError:
            if not left:
                raise
            preview = await llm.preview(changes)
        else:
            break
    return preview


def _etag(message: pb.LlmConfig) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:32]


def _keys(request: pb.SetConfigRequest) -> str:
    """Returns the names of the keys that a request is about: their values may hold what users wrote."""
    names = request.update_mask.paths or [field.name for field, _ in request.config.ListFields()]
    return ",".join(names[:_MOST_NAMES])


def _changes(request: pb.SetConfigRequest) -> dict[str, Any]:
    """Returns the keys to set and, as None, those to clear: the masked fields or, without a mask, the set ones."""
    values = read_fields(request.config, "config")
    if not request.update_mask.paths:
        return values
    changes: dict[str, Any] = {}
    for path in dict.fromkeys(request.update_mask.paths):
        head, _, name = path.partition(".")
        if path == "parameters":
            changes["parameters"] = {key: values.get("parameters", {}).get(key) for key in _PARAMETERS}
        elif head == "parameters" and name in _PARAMETERS:
            changes.setdefault("parameters", {})[name] = values.get("parameters", {}).get(name)
        elif path in _FIELDS:
            changes[path] = values.get(path)
        else:
            raise InvalidRequestError(
                f"update_mask: LlmConfig has no field {path[:80]!r}; it has {', '.join(_FIELDS)} and parameters.*",
                field="update_mask",
                limit=", ".join(_FIELDS),
                requested=path[:80],
            )
    return changes
