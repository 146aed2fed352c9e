"""The check of a request against an LLM's capabilities."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from abstractllm.errors import UnsupportedFeatureError, UnsupportedParameterError
from abstractllm.requests import GenerationRequest
from abstractllm.types import (
    Capabilities,
    GrammarFormat,
    Image,
    JsonObjectFormat,
    JsonSchemaFormat,
    ParametersPolicy,
    RegexFormat,
    Role,
    ToolCall,
)

__all__ = ["Named", "check"]

_FORMATS = {
    JsonObjectFormat: "json_object",
    JsonSchemaFormat: "json_schema",
    RegexFormat: "regex",
    GrammarFormat: "grammar",
}


class Named(Protocol):
    """The names by which messages call an LLM."""

    @property
    def name(self) -> str:
        """The LLM's name in a registry."""

    @property
    def provider(self) -> str:
        """The provider's name."""


def check(llm: Named, known: Capabilities, request: GenerationRequest) -> tuple[GenerationRequest, tuple[str, ...]]:
    """Refuses, or drops if the request says so, what is not among an LLM's capabilities.

    Args:
        llm: The LLM, for messages.
        known: Its capabilities.
        request: The request, with the configuration's defaults.

    Returns:
        The request as it will be answered, and the paths of the parameters and options that were dropped.

    Raises:
        UnsupportedFeatureError: For a message, tool or format that the LLM does not support.
        UnsupportedParameterError: For a parameter or provider option that it does not take, unless the request lets
            these be dropped.
    """
    _check_features(llm, known, request)
    return _check_parameters(llm, known, request)


def _check_features(llm: Named, known: Capabilities, request: GenerationRequest) -> None:
    parts = [part for message in request.messages for part in message.parts]
    roles = {message.role for message in request.conversation()}
    needs = {
        "tools": ("tools", bool(request.tools) or any(isinstance(part, ToolCall) for part in parts)),
        "chat.messages.image": ("image_input", any(isinstance(part, Image) for part in parts)),
        "chat": ("chat", bool(request.messages)),
        "system_prompt": ("system_prompt", Role.SYSTEM in roles),
    }
    if request.response_format is not None:
        kind = _FORMATS[type(request.response_format)]
        needs[f"response_format.{kind}"] = (kind, True)
    for field, (capability, needed) in needs.items():
        if needed and not getattr(known, capability):
            raise UnsupportedFeatureError(f"LLM {llm.name!r} ({llm.provider}) does not support {field}", field=field)


def _check_parameters(
    llm: Named, known: Capabilities, request: GenerationRequest
) -> tuple[GenerationRequest, tuple[str, ...]]:
    unsupported = [n for n in request.parameters.set_fields() if n != "model" and n not in known.parameters]
    unknown = [key for key in request.provider_options if key not in known.provider_options]
    if not unsupported and not unknown:
        return request, ()
    paths = (*(f"parameters.{name}" for name in unsupported), *(f"provider_options.{key}" for key in unknown))
    if request.parameters_policy is ParametersPolicy.REJECT:
        known_names = known.parameters if unsupported else known.provider_options
        allowed = ", ".join(known_names) or "none"
        raise UnsupportedParameterError(
            f"LLM {llm.name!r} ({llm.provider}) does not take {paths[0]}; it takes {allowed}",
            field=paths[0],
            limit=allowed,
        )
    options = {key: value for key, value in request.provider_options.items() if key not in unknown}
    parameters = request.parameters.model_copy(update=dict.fromkeys(unsupported))
    return dataclasses.replace(request, parameters=parameters, provider_options=options), paths
