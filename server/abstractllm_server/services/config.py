"""ConfigService: reading and changing an LLM's configuration while the server runs."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from google.protobuf import json_format

from abstractllm.config import LLMConfig
from abstractllm.enums import Quantization, ReasoningEffort
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
from abstractllm_api.v1 import config_pb2_grpc, generation_pb2
from abstractllm_server.convert.requests import parameter_values, struct_values
from abstractllm_server.convert.responses import duration, number_of

__all__ = ["ConfigServicer"]

_FIELDS = tuple(field.name for field in pb.LlmConfig.DESCRIPTOR.fields)
_PARAMETERS = tuple(name for name in GENERATION_PARAMETERS if name != "model")


class ConfigServicer(config_pb2_grpc.ConfigServiceServicer):
    """Changes live in this server's memory: a restart returns to the configuration file."""

    def __init__(self, registry: LLMRegistry) -> None:
        self._registry = registry
        self._models = {llm.name: (llm.config.model, *llm.config.models) for llm in registry}
        self._changing = {llm.name: asyncio.Lock() for llm in registry}

    async def GetConfig(self, request: pb.GetConfigRequest, context: Any) -> pb.GetConfigResponse:
        """Reads an LLM's configuration."""
        found = _encode(self._registry[request.llm].config)
        return pb.GetConfigResponse(config=found, etag=_etag(found))

    async def SetConfig(self, request: pb.SetConfigRequest, context: Any) -> pb.SetConfigResponse:
        """Changes an LLM's configuration from the next request on.

        Where the model of a loaded LLM changes, the answer comes when the new one is loaded and in force; a caller who
        leaves before has changed nothing.
        """
        llm = self._registry[request.llm]
        async with self._changing[llm.name]:
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
                changes["models"] = self._models[llm.name]
            try:
                changed = await llm.preview(changes)
                await _check_support(llm, changed)
                if not request.validate_only:
                    await llm.set_config_async(changes)
            except ConfigurationError as error:
                raise InvalidRequestError(
                    f"config.{error.message}",
                    field=f"config.{error.field}" if error.field else "config",
                    limit=error.limit,
                    requested=error.requested,
                ) from error
        found = _encode(changed)
        return pb.SetConfigResponse(config=found, etag=_etag(found))

    def _model(self, llm: AbstractLLMInterface, model: str | None) -> str:
        """Which models there may be is the operator's word, in the configuration file; its first where cleared."""
        allowed = self._models[llm.name]
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
    known = await llm.capabilities(config, config.model)
    asked = {f"config.parameters.{name}": name in known.parameters for name in config.parameters.set_fields()}
    asked |= {f"config.provider_options.{key}": key in known.provider_options for key in config.provider_options}
    for field, supported in asked.items():
        if not supported:
            raise UnsupportedParameterError(
                f"{field}: LLM {llm.name!r} ({llm.provider}) does not take it", field=field, llm=llm.name
            )


def _encode(config: LLMConfig) -> pb.LlmConfig:
    message = pb.LlmConfig(model=config.model, max_retries=config.max_retries, timeout=duration(config.timeout))
    if config.system_prompt is not None:
        message.system_prompt = config.system_prompt
    for name, value in config.parameters.set_fields().items():
        match value:
            case tuple():
                message.parameters.stop.extend(value)
            case dict():
                message.parameters.logit_bias.update(value)
            case ReasoningEffort():
                message.parameters.reasoning_effort = number_of(generation_pb2.ReasoningEffort.DESCRIPTOR, value)
            case _:
                setattr(message.parameters, name, value)
    if (keep_alive := duration(getattr(config, "keep_alive", None))) is not None:
        message.keep_alive.CopyFrom(keep_alive)
    quantization = getattr(config, "quantization", None)
    if quantization is not None:
        message.quantization = number_of(pb.Quantization.DESCRIPTOR, quantization)
    if config.provider_options:
        json_format.ParseDict(config.provider_options, message.provider_options)
    return message


def _etag(message: pb.LlmConfig) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:32]


def _changes(request: pb.SetConfigRequest) -> dict[str, Any]:
    """What to set and, as None, what to clear: the masked fields or, without a mask, those that are set."""
    values = _values(request.config)
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
                f"update_mask: {path[:80]!r} is no field of LlmConfig; known are {', '.join(_FIELDS)} and parameters.*",
                field="update_mask",
                limit=", ".join(_FIELDS),
                requested=path[:80],
            )
    return changes


def _values(message: pb.LlmConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        match field.name:
            case "parameters":
                values["parameters"] = parameter_values(value, "config.parameters")
            case "timeout" | "keep_alive":
                values[field.name] = value.ToNanoseconds() / 1e9
            case "quantization":
                values["quantization"] = _quantization(value)
            case "provider_options":
                values["provider_options"] = struct_values(value, "config.provider_options")
            case name:
                values[name] = value
    return values


def _quantization(number: int) -> Quantization | None:
    names = {value.number: value.name for value in pb.Quantization.DESCRIPTOR.values}
    if number not in names:
        raise InvalidRequestError(
            f"config.quantization: must be one of {', '.join(names.values())}, got {number}",
            field="config.quantization",
            requested=number,
        )
    return Quantization[names[number].removeprefix("QUANTIZATION_")] if number else None
