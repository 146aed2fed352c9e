"""The ceiling of every field of every request, from the contract's descriptors: one more is refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from abstractllm.errors import InvalidRequestError
from abstractllm.field_limits import FIELD_LIMITS
from abstractllm_api.v1 import config_pb2, models_pb2
from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_server.convert.ceilings import check_ceilings
from tests.server.support import Serving, failure
from tools.limits_page import MARKS, PAGE, table
from tools.marked_parts import with_part

METHODS = {
    method.full_name: method
    for file in (pb.DESCRIPTOR, models_pb2.DESCRIPTOR, config_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}
PARAMETERS = pb.GenerationParameters.DESCRIPTOR.full_name
"""Their bounds stand in the contract itself; `test_field_limits` tests them."""
PLAIN = ("google.protobuf.Struct", "google.protobuf.Duration")


@dataclass(frozen=True)
class Place:
    """One field that a request may hold."""

    method: str
    steps: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        field = self.steps[-1]
        return f"{field.containing_type.name}.{field.name}"

    @property
    def id(self) -> str:
        return f"{self.method.rpartition('.')[2]}-{'.'.join(step.name for step in self.steps)}"


def places(method: str, kind: Descriptor, above: tuple[FieldDescriptor, ...] = ()) -> Iterator[Place]:
    for field in kind.fields:
        steps = (*above, field)
        inner = field.message_type
        if inner is None or inner.full_name in PLAIN or inner.GetOptions().map_entry or field.is_repeated:
            yield Place(method, steps)
        if inner is not None and inner.full_name not in (*PLAIN, PARAMETERS) and not inner.GetOptions().map_entry:
            yield from places(method, inner, steps)


PLACES = [place for name, method in METHODS.items() for place in places(name, method.input_type)]


def needs_ceiling(field: FieldDescriptor) -> bool:
    return field.is_repeated or field.type not in (field.TYPE_ENUM, field.TYPE_BOOL)


def test_every_field_of_every_request_is_in_the_table_and_nothing_else() -> None:
    needed = {place.name for place in PLACES if needs_ceiling(place.steps[-1])}
    assert needed == set(FIELD_LIMITS)


def test_the_documentation_shows_the_table(repository: Path) -> None:
    page = (repository / PAGE).read_text("utf-8")
    assert with_part(page, MARKS, table()) == page


COUNTED = [
    place
    for place in PLACES
    if needs_ceiling(place.steps[-1])
    and FIELD_LIMITS[place.name].unit not in ("bytes", "seconds", "")
    # All parts count together; `test_field_limits` has them.
    and place.name != "ChatMessage.parts"
]


def filled(place: Place, count: int) -> tuple[Message, str]:
    """A request in which one field has so much, and the field's path."""
    message = GetMessageClass(METHODS[place.method].input_type)()
    holder, path = message, ""
    for step in place.steps[:-1]:
        path += f"{'.' if path else ''}{step.name}"
        if step.is_repeated:
            holder = getattr(holder, step.name).add()
            path += "[0]"
        else:
            holder = getattr(holder, step.name)
    last = place.steps[-1]
    path += f"{'.' if path else ''}{last.name}"
    put(holder, last, count)
    return message, path


def put(holder: Any, field: FieldDescriptor, count: int) -> None:
    content = getattr(holder, field.name)
    if not field.is_repeated:
        setattr(holder, field.name, "漢" * count)
    elif field.message_type is None:
        content.extend("漢" for _ in range(count))
    elif field.message_type.GetOptions().map_entry:
        content.update({str(index): "漢" for index in range(count)})
    else:
        for _ in range(count):
            content.add()


@pytest.mark.parametrize("place", COUNTED, ids=lambda place: place.id)
async def test_one_more_than_the_ceiling_is_refused_by_every_method(served: Serving, place: Place) -> None:
    most = FIELD_LIMITS[place.name].most
    request, path = filled(place, most)
    check_ceilings(request)
    request, path = filled(place, most + 1)
    method = METHODS[place.method]
    call_path = f"/{method.containing_service.full_name}/{method.name}"
    make = served.channel.unary_stream if method.server_streaming else served.channel.unary_unary
    call = make(call_path)(request.SerializeToString())
    error = await failure(call.read() if method.server_streaming else call)
    assert (error.code.name, error.reason, error.fields) == ("INVALID_ARGUMENT", "INVALID_REQUEST", [path])
    assert (error.metadata["limit"], error.metadata["requested"].split()[0]) == (str(most), str(most + 1))


EACH = [place for place in PLACES if needs_ceiling(place.steps[-1]) and FIELD_LIMITS[place.name].each]


@pytest.mark.parametrize("place", EACH, ids=lambda place: place.id)
@pytest.mark.parametrize("part", ["key", "value"])
def test_items_keys_and_values_have_a_ceiling_too(place: Place, part: str) -> None:
    most = FIELD_LIMITS[place.name].each
    assert most
    for count in (most, most + 1):
        message = GetMessageClass(METHODS[place.method].input_type)()
        holder: Any = message
        for step in place.steps[:-1]:
            holder = getattr(holder, step.name)
        content, text = getattr(holder, place.steps[-1].name), "漢" * count
        if place.steps[-1].message_type is None:
            content.append(text)
        else:
            content.update({text: "x"} if part == "key" else {"x": text})
        if count == most:
            check_ceilings(message)
        else:
            with pytest.raises(InvalidRequestError, match=f"at most {most} characters, got {count} characters"):
                check_ceilings(message)


@pytest.mark.parametrize(
    ("path", "request_", "field"),
    [
        ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="x" * 1025), "service"),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest(file_by_filename="x" * 1025),
            "file_by_filename",
        ),
    ],
)
async def test_requests_to_other_services_have_ceilings(
    served: Serving, path: str, request_: Message, field: str
) -> None:
    make = served.channel.stream_stream if "reflection" in path else served.channel.unary_unary
    data = request_.SerializeToString()
    if "reflection" in path:
        call = make(path)(iter([data]))
        error = await failure(call.read())
    else:
        error = await failure(make(path)(data))
    assert (error.code.name, error.fields) == ("INVALID_ARGUMENT", [field])


def test_a_limit_is_told_in_words() -> None:
    rows = table().splitlines()
    assert all(re.fullmatch(r"\| .* \| .* \|", row) for row in rows if not row.startswith("|---"))
    assert any(row.startswith("| `llm`, `request_id`,") and row.endswith("| 256 characters |") for row in rows)
