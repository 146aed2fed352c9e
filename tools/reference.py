"""Writes the contract's reference from its descriptors and the comments in the .proto files.

`make generate` runs this (tools/generate.py).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

PAGE = Path("docs/reference.md")
PACKAGE = "abstractllm_api.v1"
READING_ORDER = ("generation", "models", "config", "errors")
"""Files in the order in which a reader wants them; a file that is not in the list comes after."""
ERROR_REASONS = "ErrorReason"
WELL_KNOWN = "https://protobuf.dev/reference/protobuf/google.protobuf/#"

# Field numbers in descriptor.proto, of which the paths to comments are made.
SYNTAX, MESSAGES, ENUMS, SERVICES, MEMBERS, ONEOFS = 12, 4, 5, 6, 2, 8

INTRODUCTION = """\
# The contract, message by message

Written by `make generate` from the comments in `proto/`; edit those, not this page. How the contract may change is in
[contract-growth.md](contract-growth.md), what is done with each error in [errors.md](errors.md).

A field without a label has its type's zero value where it is not set; a message or an `optional` field can be told
absent. Of the fields of a `oneof` at most one is set.
"""

Location = tuple[int, ...]


@dataclass
class File:
    """A .proto file and its comments, by the paths of the elements that they describe."""

    proto: FileDescriptorProto
    comments: dict[Location, str] = field(default_factory=dict)

    @classmethod
    def read(cls, proto: FileDescriptorProto) -> "File":
        """Takes the comments out of the source information.

        Raises:
            SystemExit: If there is no source information.
        """
        if not proto.source_code_info.location:
            raise SystemExit(f"{proto.name}: the descriptor set has no source information")
        comments = {
            tuple(location.path): location.leading_comments
            for location in proto.source_code_info.location
            if location.leading_comments
        }
        return cls(proto, comments)

    @property
    def title(self) -> str:
        """The file's name without its folder."""
        return self.proto.name.rpartition("/")[2]

    def names(self) -> Iterator[str]:
        """Yields the names that the file defines, in the order of this page."""
        for kind in (self.proto.service, self.proto.message_type, self.proto.enum_type):
            yield from (item.name for item in kind)

    def lines(self) -> Iterator[str]:
        """Yields the paragraphs of the file's part of the page."""
        yield f"## {self.title}"
        yield self._paragraphs((SYNTAX,))
        for index, service in enumerate(self.proto.service):
            yield from self._service(service, (SERVICES, index))
        for index, message in enumerate(self.proto.message_type):
            yield from self._message(message, (MESSAGES, index))
        for index, enum in enumerate(self.proto.enum_type):
            yield from self._enum(enum, (ENUMS, index))

    def _service(self, service: ServiceDescriptorProto, path: Location) -> Iterator[str]:
        yield f"### {service.name}"
        yield self._paragraphs(path)
        rows = []
        for index, method in enumerate(service.method):
            request, response = link(method.input_type), link(method.output_type)
            streamed = (
                "stream of " * method.client_streaming + request,
                "stream of " * method.server_streaming + response,
            )
            comment = self._cell((*path, MEMBERS, index), method.options.deprecated)
            rows.append((f"`{method.name}`", *streamed, comment))
        yield table(("RPC", "takes", "gives", "meaning"), rows)

    def _message(self, message: DescriptorProto, path: Location) -> Iterator[str]:
        yield f"### {message.name}"
        yield self._paragraphs(path)
        if message.options.deprecated:
            yield "Deprecated."
        if reserved := [*reserved_numbers(message), *(f"`{name}`" for name in message.reserved_name)]:
            yield f"Reserved: {', '.join(reserved)}."
        for index, oneof in enumerate(message.oneof_decl):
            if (*path, ONEOFS, index) in self.comments:
                yield f"oneof `{oneof.name}`: {self._cell((*path, ONEOFS, index), False)}"
        entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        rows = []
        for index, member in enumerate(message.field):
            comment = self._cell((*path, MEMBERS, index), member.options.deprecated)
            rows.append((str(member.number), f"`{member.name}`", *type_and_label(member, message, entries), comment))
        yield table(("#", "field", "type", "label", "meaning"), rows) if rows else "No fields."

    def _enum(self, enum: EnumDescriptorProto, path: Location) -> Iterator[str]:
        yield f"### {enum.name}"
        yield self._paragraphs(path)
        comments = [
            self._cell((*path, MEMBERS, index), value.options.deprecated) for index, value in enumerate(enum.value)
        ]
        if enum.name == ERROR_REASONS:
            yield error_table(enum.value, comments)
        else:
            rows = [
                (str(value.number), f"`{value.name}`", text) for value, text in zip(enum.value, comments, strict=True)
            ]
            yield table(("#", "value", "meaning"), rows)

    def _paragraphs(self, path: Location) -> str:
        """Returns a comment as Markdown."""
        lines = [line.strip() for line in self.comments.get(path, "").strip().splitlines()]
        return escaped("\n".join(lines))

    def _cell(self, path: Location, deprecated: bool) -> str:
        """Returns a comment as a cell of a table, marked where its subject is deprecated."""
        return "**Deprecated.** " * deprecated + self._paragraphs(path).replace("\n", " ").replace("|", r"\|")


def escaped(text: str) -> str:
    """Escapes text outside code spans, so that it is not read as HTML."""
    return "".join(
        piece if index % 2 else piece.replace("<", r"\<") for index, piece in enumerate(re.split("(`[^`]*`)", text))
    )


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    return "\n".join([lines[0], "|---" * len(titles) + "|", *lines[1:]])


def error_table(values: Sequence[EnumValueDescriptorProto], comments: Sequence[str]) -> str:
    """Returns the table of error reasons, each with the status code that its comment begins with."""
    prefix = "ERROR_REASON_"
    rows = []
    for value, comment in zip(values, comments, strict=True):
        code, _, meaning = comment.partition(". ") if value.number else ("", "", comment)
        rows.append((str(value.number), f"`{value.name.removeprefix(prefix)}`", code, meaning))
    return f"Every name begins with `{prefix}`.\n\n" + table(("#", "reason", "gRPC code", "meaning"), rows)


def type_and_label(
    member: FieldDescriptorProto, message: DescriptorProto, entries: dict[str, DescriptorProto]
) -> Sequence[str]:
    """Returns a field's type and label as the page shows them."""
    entry = entries.get(member.type_name.rpartition(".")[2]) if member.type == member.TYPE_MESSAGE else None
    if entry is not None:
        key, value = (type_of(part) for part in entry.field)
        return f"map\\<{key}, {value}>", ""
    label = "repeated" if member.label == member.LABEL_REPEATED else ""
    if member.proto3_optional:
        label = "optional"
    elif member.HasField("oneof_index"):
        label = f"oneof `{message.oneof_decl[member.oneof_index].name}`"
    return type_of(member), label


def type_of(member: FieldDescriptorProto) -> str:
    """Returns a field's type; a message's or an enum's is a link to its description."""
    return link(member.type_name) if member.type_name else FieldDescriptorProto.Type.Name(member.type)[5:].lower()


def link(full_name: str) -> str:
    """Returns a type's name as a link to its description, on this page or among protobuf's own."""
    package, _, name = full_name.strip(".").rpartition(".")
    if package == PACKAGE:
        return f"[{name}](#{anchor(name)})"
    if package == "google.protobuf":
        return f"[{name}]({WELL_KNOWN}{re.sub('(?<=[a-z])(?=[A-Z])', '-', name).lower()})"
    return f"`{full_name.strip('.')}`"


def anchor(heading: str) -> str:
    """Returns the anchor that GitHub and most others make of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def reserved_numbers(message: DescriptorProto) -> Iterator[str]:
    """Yields the numbers that may not be used again; ranges are inclusive, unlike the descriptor's."""
    for taken in message.reserved_range:
        yield str(taken.start) if taken.end == taken.start + 1 else f"{taken.start} to {taken.end - 1}"


def emit(descriptors: Path) -> dict[Path, str]:
    """Write the reference.

    Args:
        descriptors: A descriptor set with source information.

    Returns:
        The text of the page, in Markdown, by its path.
    """
    protos = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    files = [File.read(proto) for proto in protos if proto.package == PACKAGE]
    names = [f"{name}.proto" for name in READING_ORDER]
    files.sort(key=lambda file: (names.index(file.title) if file.title in names else len(names), file.title))
    contents = [
        f"- [{file.title}](#{anchor(file.title)}): {', '.join(link(f'{PACKAGE}.{name}') for name in file.names())}"
        for file in files
    ]
    parts = [INTRODUCTION.strip(), "\n".join(contents), *(line for file in files for line in file.lines())]
    return {PAGE: "\n\n".join(part for part in parts if part) + "\n"}
