"""The ceilings of requests' fields, checked before they are decoded: a long list would hold up everybody meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from abstractllm.field_limits import FIELD_LIMITS, FieldLimit
from abstractllm.validation import at_most
from abstractllm_api.v1 import generation_pb2 as pb

__all__ = ["check_ceilings"]

_CHECKED_WHERE_READ = (
    # The contract's comments bound the parameters, `fields.read_struct` the structs.
    pb.GenerationParameters.DESCRIPTOR.full_name,
    "google.protobuf.Struct",
    "google.protobuf.Duration",
)
_OF_OTHER_SERVICES = FieldLimit(1024), FieldLimit(64, "items", each=1024)
"""The ceilings of a field, and of a list, in requests to gRPC's own services: they are names."""

_SMALLEST_OF_PARTS = min(
    limit.most
    for name, limit in FIELD_LIMITS.items()
    if name.partition(".")[0] in ("Image", "ToolCall", "ToolResult", "Reasoning", "Part")
)
"""Bytes that a part may have before one of its fields can be beyond its ceiling: few parts have more."""

_Check = Callable[[Any, str], None]


def check_ceilings(request: Message) -> None:
    """Checks that no field of a request, of any method, has more than its ceiling in `FIELD_LIMITS`.

    Raises:
        InvalidRequestError: Naming the field, the limit and the value.
    """
    _check_message(request, "")


def _check_message(message: Message, path: str) -> None:
    checks = _checks(message.DESCRIPTOR)
    for field, value in message.ListFields():
        if check := checks.get(field.number):
            check(value, path + field.name)


@cache
def _checks(kind: Descriptor) -> dict[int, _Check]:
    """Returns the checks that a message's fields need, by the fields' numbers."""
    return {field.number: check for field in kind.fields if (check := _check_of(field))}


def _check_of(field: FieldDescriptor) -> _Check | None:
    kind = field.message_type
    if kind is pb.Chat.DESCRIPTOR:
        return _check_chat
    if kind is not None and kind.GetOptions().map_entry:
        return _map_check(_limit_of(field))
    if field.is_repeated:
        return _list_check(_limit_of(field), is_text=kind is None)
    if kind is not None:
        return None if kind.full_name in _CHECKED_WHERE_READ else lambda value, path: _check_message(value, f"{path}.")
    if field.type not in (field.TYPE_STRING, field.TYPE_BYTES) or _limit_of(field).unit == "bytes":
        return None  # of what may be as large as the message, the message is the limit
    limit = _limit_of(field)
    return lambda value, path: at_most(len(value), limit.most, path, limit.unit)


def _limit_of(field: FieldDescriptor) -> FieldLimit:
    of_field, of_list = _OF_OTHER_SERVICES
    message = field.containing_type
    assert message is not None  # it is no extension
    return FIELD_LIMITS.get(f"{message.name}.{field.name}") or (of_list if field.is_repeated else of_field)


def _map_check(limit: FieldLimit) -> _Check:
    def check(entries: Any, path: str) -> None:
        at_most(len(entries), limit.most, path, limit.unit)
        for key, value in entries.items():
            at_most(max(len(key), len(value)), limit.each or limit.most, f"{path}.{key[:64]}", "characters")

    return check


def _list_check(limit: FieldLimit, *, is_text: bool) -> _Check:
    def check(items: Any, path: str) -> None:
        at_most(len(items), limit.most, path, limit.unit)
        for index, item in enumerate(items):
            if is_text:
                at_most(len(item), limit.each or limit.most, f"{path}[{index}]", "characters")
            else:
                _check_message(item, f"{path}[{index}].")

    return check


def _check_chat(chat: pb.Chat, path: str) -> None:
    """Checks a conversation, all of whose parts count together."""
    most_messages, most_parts = FIELD_LIMITS["Chat.messages"], FIELD_LIMITS["ChatMessage.parts"]
    path = f"{path}.messages"
    at_most(len(chat.messages), most_messages.most, path, most_messages.unit)
    at_most(sum(len(message.parts) for message in chat.messages), most_parts.most, path, most_parts.unit)
    if chat.ByteSize() <= _SMALLEST_OF_PARTS:
        return
    for index, message in enumerate(chat.messages):
        for place, part in enumerate(message.parts):
            if part.ByteSize() > _SMALLEST_OF_PARTS:
                _check_message(part, f"{path}[{index}].parts[{place}].")
