"""Generation parameters by name <-> the contract's GenerationParameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import _fields
from abstractllm_client.errors import InvalidRequestError, UnsupportedParameterError

NAMES = tuple(field.name for field in pb.GenerationParameters.DESCRIPTOR.fields)
"""The names of all generation parameters, in the contract's order."""
OTHER_NAMES = {"max_new_tokens": "max_tokens"}
"""Other names of generation parameters, for callers who know them by these."""


def rename_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values in which each generation parameter has its own name, whichever of its names it had.

    Raises:
        InvalidRequestError: If a parameter has two names with different values.
    """
    renamed = dict(values)
    for other, name in OTHER_NAMES.items():
        if other in renamed:
            value = renamed.pop(other)
            if renamed.setdefault(name, value) != value:
                raise InvalidRequestError(
                    f"parameters.{other}: is another name of {name}, which is {renamed[name]!r:.80}, got {value!r:.80}",
                    field=f"parameters.{other}",
                    limit=renamed[name],
                    requested=value,
                )
    return renamed


def encode(values: Mapping[str, Any]) -> pb.GenerationParameters:
    """Encodes parameters; whether a value is in range is the server's to say.

    Args:
        values: Values by name; `None` counts as unset. A single string for `stop` counts as a list of one.

    Raises:
        UnsupportedParameterError: For a name that is no generation parameter.
        InvalidRequestError: For a value of the wrong type.
    """
    message = pb.GenerationParameters()
    for name, value in values.items():
        path = f"parameters.{name}"
        if name not in NAMES:
            raise UnsupportedParameterError(f"{path} is not a known parameter", field=path)
        if value is not None:
            _fields.encode(message, name, value, path)
    return message


def decode(message: pb.GenerationParameters) -> dict[str, Any]:
    """Decodes the parameters that are set, by name."""
    return {field.name: _fields.decode(message, field.name) for field, _ in message.ListFields()}
