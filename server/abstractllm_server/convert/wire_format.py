"""Messages as they arrive, looked through before they are decoded: many small fields take far more memory decoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor

from abstractllm.errors import InvalidRequestError

__all__ = ["check_field_count"]

_SMALL_BYTES = 64 << 10
"""Bytes of a message that takes little however many fields it has."""
_MOST_FIELDS = 200_000
"""Fields of a message, those of the messages within it included: more than all ceilings together allow. Decoded, each
takes up to 70 bytes."""
_LONGEST_VARINT = 10
_VARINT, _LENGTH, _WIDTHS = 0, 2, {1: 8, 5: 4}
"""The kinds of fields on the wire: a number, a length and as many bytes, and the bytes of those of a fixed width."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One field.

    Args:
        name: Its name in errors: up to the list that it is in.
        message: The type of the message that it holds; None if it holds none.
        names_its_fields: True if the fields of that message have names of their own.
    """

    name: str
    message: Descriptor | None = None
    names_its_fields: bool = False


_UNKNOWN = _Field("unknown fields")


def check_field_count(data: bytes, kind: Descriptor) -> None:
    """Checks that a message has not too many fields; what is no message passes, since its decoder refuses it.

    https://protobuf.dev/programming-guides/encoding/ describes the format.

    Args:
        data: The message, encoded.
        kind: Its type.

    Raises:
        InvalidRequestError: If it has, naming the field that there is most of.
    """
    if len(data) <= _SMALL_BYTES:
        return
    try:
        field = _crowded_field(data, kind)
    except IndexError:  # it is cut off
        return
    if field is not None:
        raise InvalidRequestError(
            f"{field}: a request must have at most {_MOST_FIELDS} fields in all, got more",
            field=field,
            limit=f"at most {_MOST_FIELDS} fields",
            requested="more",
        )


def _crowded_field(data: bytes, kind: Descriptor) -> str | None:
    """Returns the name of the field that there is most of, of a message with too many; None of any other."""
    counts: dict[str, int] = {}
    position, end, fields = 0, len(data), _fields(kind, "", has_names=True)
    outer: list[tuple[int, dict[int, _Field]]] = []
    for _ in range(_MOST_FIELDS + 1):
        while position >= end:
            if not outer:
                return None
            end, fields = outer.pop()
        tag = data[position]
        position += 1
        if tag >= 0x80:
            tag, position = _varint(data, position - 1)
        field = fields.get(tag >> 3, _UNKNOWN)
        name, wire_type = field.name, tag & 7
        counts[name] = counts.get(name, 0) + 1
        if wire_type == _LENGTH:
            length, position = _varint(data, position)
            if field.message is None:
                position += length
            elif length:
                outer.append((end, fields))
                end = position + length
                fields = _fields(field.message, name, has_names=field.names_its_fields)
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        else:
            position += _WIDTHS.get(wire_type, 0)
    most = max(counts.values())
    # A list within a message that itself is there again and again is the more telling name.
    return max((name for name in counts if 2 * counts[name] > most), key=len)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a number, and the position after it."""
    value = data[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    for shift in range(7, 7 * _LONGEST_VARINT, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError("it is no number")


@cache
def _fields(kind: Descriptor, path: str, *, has_names: bool) -> dict[int, _Field]:
    """Returns the fields of a message, by number.

    Args:
        kind: Its type.
        path: The name of the field that holds it; empty for a request.
        has_names: True if they have names of their own; else `path` stands for them.
    """
    fields = {}
    for field in kind.fields:
        name = f"{path}.{field.name}".removeprefix(".") if has_names else path
        message = field.message_type
        is_free = field.is_repeated or (message is not None and message.full_name == "google.protobuf.Struct")
        fields[field.number] = _Field(name, message, has_names and not is_free)
    return fields
