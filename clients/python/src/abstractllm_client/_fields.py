"""Single fields of the contract's messages <-> Python values, by the type that the descriptor has for each field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from abstractllm_client import _check
from abstractllm_client._enum_codec import BY_NAME

_BITS = {FieldDescriptor.TYPE_INT32: 32, FieldDescriptor.TYPE_INT64: 64}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 604_800
"""Seconds: a week."""


def encode(message: Message, name: str, value: object, path: str) -> None:
    """Puts a Python value into a field; whether a value is in range is the server's to say.

    Args:
        message: The message to change.
        name: One of its fields: a scalar, an enum, a list of scalars, a map of scalars, a Duration or a Struct.
        value: The value; not None. A single string for a list of strings counts as a list of one.
        path: The name of the field in errors.

    Raises:
        InvalidRequestError: For a value of the wrong type.
    """
    field, content = _field(message, name), getattr(message, name)
    if _is_map(field):
        content.update(_mapping(field, value, path))
    elif field.is_repeated:
        content.extend(_list(field, value, path))
    elif isinstance(content, Duration):
        content.FromNanoseconds(round(_span(value, path) * 1e9))
    elif isinstance(content, Struct):
        if not isinstance(value, Mapping):
            raise _check.refuse(path, "must be a mapping", value)
        content.SetInParent()
        content.update(_check.plain(value, path))
    else:
        setattr(message, name, _scalar(field, value, path))


def decode(message: Message, name: str) -> Any:
    """Reads a field as a Python value: None where it is absent, times as seconds, enums as the client's members."""
    field, content = _field(message, name), getattr(message, name)
    if not field.is_repeated and field.has_presence and not message.HasField(name):
        return None
    if _is_map(field):
        return dict(content)
    if field.is_repeated:
        return list(content)
    if isinstance(content, Duration | Timestamp):
        return content.ToNanoseconds() / 1e9
    if isinstance(content, Struct):
        return _whole(MessageToDict(content))
    return BY_NAME[field.enum_type.name].decode(content) if field.enum_type else content


def _field(message: Message, name: str) -> FieldDescriptor:
    return cast(FieldDescriptor, message.DESCRIPTOR.fields_by_name[name])


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _scalar(field: FieldDescriptor, value: object, path: str) -> Any:
    if field.enum_type:
        return BY_NAME[field.enum_type.name].encode(value, path)
    if field.type in _BITS:
        return _check.integer(value, path, _BITS[field.type])
    if field.type == FieldDescriptor.TYPE_STRING:
        return _check.text(value, path)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _check.number(value, path)
    raise TypeError(f"{field.full_name} is of a type that this client cannot encode")


def _list(field: FieldDescriptor, value: object, path: str) -> list[Any]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise _check.refuse(path, "must be a list of strings", value)
    return [_scalar(field, entry, f"{path}[{index}]") for index, entry in enumerate(entries)]


def _mapping(field: FieldDescriptor, value: object, path: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _check.refuse(path, "must be a mapping from token id to number", value)
    entry_type: Any = field.message_type
    key_field, value_field = (entry_type.fields_by_name[name] for name in ("key", "value"))
    return {_scalar(key_field, key, path): _scalar(value_field, entry, f"{path}.{key}") for key, entry in value.items()}


def _span(value: object, path: str) -> float:
    """Reads `90`, `"90s"`, `"10m"` or `"1h"` as seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", value)
        if match is None:
            raise _check.refuse(path, "must be a number of seconds, or a number with ms, s, m, h or d", value)
        value = float(match[1]) * _UNITS[match[2] or "s"]
    span = _check.seconds(value, path)
    if span > _LONGEST:
        raise _check.refuse(path, f"must be at most {_LONGEST} seconds (a week)", value, limit=_LONGEST)
    return span


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
