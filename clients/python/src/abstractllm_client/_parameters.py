"""Generation parameters by name <-> the contract's GenerationParameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import _check
from abstractllm_client._enum_codec import REASONING_EFFORTS
from abstractllm_client.errors import UnsupportedParameterError


def _stop(value: object, field: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise _check.refuse(field, "must be a list of strings", value)
    return [_check.text(entry, f"{field}[{index}]") for index, entry in enumerate(texts)]


def _logit_bias(value: object, field: str) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise _check.refuse(field, "must be a mapping from token id to number", value)
    return {_check.integer(key, field, 32): _check.number(bias, f"{field}.{key}") for key, bias in value.items()}


def _int32(value: object, field: str) -> int:
    return _check.integer(value, field, 32)


def _int64(value: object, field: str) -> int:
    return _check.integer(value, field, 64)


_TAKE: dict[str, Callable[[object, str], Any]] = {
    "model": _check.text,
    "temperature": _check.number,
    "top_p": _check.number,
    "top_k": _int32,
    "min_p": _check.number,
    "max_tokens": _int32,
    "seed": _int64,
    "presence_penalty": _check.number,
    "frequency_penalty": _check.number,
    "repetition_penalty": _check.number,
    "stop": _stop,
    "logit_bias": _logit_bias,
    "top_logprobs": _int32,
    "reasoning_effort": REASONING_EFFORTS.encode,
}
NAMES = tuple(_TAKE)
"""The names of all generation parameters, in the contract's order."""


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
        field = f"parameters.{name}"
        if name not in _TAKE:
            raise UnsupportedParameterError(f"{field} is not a known parameter", field=field)
        if value is None:
            continue
        taken = _TAKE[name](value, field)
        if name == "stop":
            message.stop.extend(taken)
        elif name == "logit_bias":
            message.logit_bias.update(taken)
        else:
            setattr(message, name, taken)
    return message


def decode(message: pb.GenerationParameters) -> dict[str, Any]:
    """Decodes the parameters that are set, by name."""
    found: dict[str, Any] = {}
    for name in NAMES:
        if name == "stop":
            if message.stop:
                found[name] = list(message.stop)
        elif name == "logit_bias":
            if message.logit_bias:
                found[name] = dict(message.logit_bias)
        elif message.HasField(name):
            value = getattr(message, name)
            found[name] = REASONING_EFFORTS.decode(value) if name == "reasoning_effort" else value
    return found
