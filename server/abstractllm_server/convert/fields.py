"""Fields of the contract's messages and the library's values of the same names, by the types in the descriptor.

A scalar stands for itself, an enum for the library's enum of the same name, a list of scalars for a tuple, a map of
scalars for a dict, a Duration for seconds, a Timestamp for seconds since the epoch, a Struct for plain values, and any
other message for its fields by name. A new field of one of these types needs no code of its own. Lists of messages, and
the alternatives of a `oneof`, are not converted here but in `requests` and `responses`, by code for each.
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from typing import Any, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from abstractllm import enums
from abstractllm.errors import InvalidRequestError
from abstractllm.field_limits import FIELD_LIMITS, MAX_PROVIDER_OPTIONS
from abstractllm.parameters import MOST_ITEMS
from abstractllm.validation import at_most, replace_surrogates
from abstractllm_api.v1.generation_pb2 import GenerationParameters

__all__ = [
    "duration",
    "enum_number",
    "invalid",
    "read_enum",
    "read_fields",
    "read_struct",
    "to_message",
    "write_fields",
]

M = TypeVar("M", bound=Message)

_MOST_ITEMS = {f"{GenerationParameters.DESCRIPTOR.full_name}.{name}": most for name, most in MOST_ITEMS.items()}
"""The most items of lists and maps, counted before they are decoded: a long one would hold up everybody meanwhile."""


def read_fields(message: Message, path: str) -> dict[str, Any]:
    """Reads the fields that a message sets.

    Args:
        message: The message.
        path: Its own path, which errors put before a field's name.

    Returns:
        The values by name, not yet checked for their range. An enum's unspecified value is None.

    Raises:
        InvalidRequestError: For an enum's unknown value, for too many items, and as `read_struct` does.
    """
    return {field.name: _read(field, value, f"{path}.{field.name}") for field, value in message.ListFields()}


def to_message(kind: type[M], value: Any) -> M:
    """Makes a message; see `write_fields`."""
    message = kind()
    write_fields(message, value)
    return message


def write_fields(message: Message, values: Any) -> None:
    """Sets the fields of a message.

    Args:
        message: The message to change.
        values: A dataclass, or a mapping of values by name; those that are None stay absent.
    """
    by_name = _fields_of(values) if dataclasses.is_dataclass(values) else values
    for name, value in by_name.items():
        if value is not None:
            _write(message, cast(FieldDescriptor, message.DESCRIPTOR.fields_by_name[name]), value)


def read_enum(enum: EnumDescriptor, number: int, path: str) -> Any:
    """Returns the library's member for the number of an enum's value; None for the unspecified one.

    Raises:
        InvalidRequestError: If the contract has no such value.
    """
    value = enum.values_by_number.get(number)
    if value is None:
        raise invalid(path, f"must be one of {', '.join(enum.values_by_name)}", number)
    return getattr(enums, enum.name)[value.name.removeprefix(_prefix(enum))] if number else None


def enum_number(enum: EnumDescriptor, member: StrEnum) -> Any:
    """Returns the number of a member of the library's enum of the same name."""
    return enum.values_by_name[_prefix(enum) + member.name].number


def read_struct(message: Struct, path: str) -> dict[str, Any]:
    """Reads a Struct as plain values; its whole numbers become integers.

    Raises:
        InvalidRequestError: For a number that is not finite, and for too large a Struct.
    """
    at_most(len(message.fields), MAX_PROVIDER_OPTIONS, path, "keys")
    at_most(message.ByteSize(), FIELD_LIMITS["GenerateRequest.provider_options"].most, path, "bytes")
    return _read_struct(message, path)


def duration(seconds: float | None) -> Duration | None:
    """Encodes a span; None stays absent."""
    if seconds is None:
        return None
    message = Duration()
    message.FromNanoseconds(_nanoseconds(seconds))
    return message


def invalid(path: str, rule: str, value: object) -> InvalidRequestError:
    """Makes the error for a field that breaks a rule."""
    return InvalidRequestError(f"{path}: {rule}, got {value}", field=path, limit=rule, requested=value)


def _read(field: FieldDescriptor, value: Any, path: str) -> Any:
    if field.is_repeated:
        if field.full_name in _MOST_ITEMS:
            at_most(len(value), _MOST_ITEMS[field.full_name], path, "items")
        return dict(value) if _is_map(field) else tuple(value)
    match value:
        case Duration() | Timestamp():
            return value.ToNanoseconds() / 1e9
        case Struct():
            return read_struct(value, path)
        case Message():
            return read_fields(value, path)
    return read_enum(field.enum_type, value, path) if field.enum_type else value


def _read_struct(message: Struct, path: str) -> dict[str, Any]:
    return {key: _read_value(value, f"{path}.{key}") for key, value in message.fields.items()}


def _read_value(value: Value, path: str) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise invalid(path, "must be finite", number)
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _read_struct(value.struct_value, path)
        case "list_value":
            return [_read_value(item, f"{path}[{index}]") for index, item in enumerate(value.list_value.values)]
        case _:
            return None


def _write(message: Message, field: FieldDescriptor, value: Any) -> None:
    content = getattr(message, field.name)
    if _is_map(field):
        content.update(value)
    elif field.is_repeated:
        content.extend(replace_surrogates(item) if isinstance(item, str) else item for item in value)
    elif isinstance(content, Duration | Timestamp):
        content.FromNanoseconds(_nanoseconds(value))
    elif isinstance(content, Struct):
        json_format.ParseDict(value, content)
    elif isinstance(content, Message):
        content.SetInParent()
        write_fields(content, value)
    elif field.enum_type:
        setattr(message, field.name, enum_number(field.enum_type, value))
    else:
        setattr(message, field.name, replace_surrogates(value) if isinstance(value, str) else value)


def _nanoseconds(seconds: float) -> int:
    """Returns the nearest whole number of nanoseconds: a value that is read and written again stays the same."""
    # Whole seconds by themselves: a time of day in nanoseconds is beyond a double's precision.
    whole = math.floor(seconds)
    return whole * 10**9 + round((seconds - whole) * 1e9)


def _fields_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _prefix(enum: EnumDescriptor) -> str:
    """Returns what the names of an enum's values begin with in the contract, such as `FINISH_REASON_`."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
