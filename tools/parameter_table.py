"""The table of generation parameters, read from the contract.

`proto/abstractllm_api/v1/generation.proto` describes each parameter once: its name, number and type, and in its comment
what it means and within which bounds. Everything else that knows the parameters is generated from this table
(`tools/emit/`), or follows from it as the program runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

FILE = "abstractllm_api/v1/generation.proto"
MESSAGE = "GenerationParameters"
MESSAGES, FIELDS = 4, 2
"""Numbers of the fields of descriptor.proto that the path to a comment is made of."""

SCALARS: Mapping[int, str] = {
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_ENUM: "enum",
}
TYPE_BOUNDS = {"int32": 31, "int64": 63}
"""Bits of a whole number that has no narrower range."""
IMPLIED_BOUNDS = {bound for bits in TYPE_BOUNDS.values() for bound in (-(2**bits), 2**bits - 1)}
"""Bounds that the types of whole numbers have anyway, so that no text need name them."""

TAG = re.compile(r"(?P<name>Range|Length|Items|Keys): (?P<rest>.+)\.")
INTERVAL = re.compile(
    r"(?P<open>[\[(])(?P<minimum>-?[0-9.]+), (?P<maximum>-?[0-9.]+)(?P<close>[\])])"
    r"(?: characters)?(?:; unit: (?P<unit>\w+))?"
)


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers, lengths or counts; `None` is no bound."""

    minimum: float | int | None
    maximum: float | int | None
    excludes_minimum: bool = False
    excludes_maximum: bool = False

    def __str__(self) -> str:
        """The interval in mathematical notation, such as `(0, 1]`."""
        left, right = "[("[self.excludes_minimum], "])"[self.excludes_maximum]
        return f"{left}{self.minimum}, {self.maximum}{right}"

    def in_words(self, *, is_count: bool = False) -> str:
        """Returns the interval in words, such as `from 0 to 2` or `above 0 and at most 1`.

        Args:
            is_count: True where it bounds a count: that a count is at least 0 is then left unsaid, as in `at most 16`.

        Returns:
            The words; empty where the interval says no more than the type.
        """
        unsaid = IMPLIED_BOUNDS | {0} if is_count else IMPLIED_BOUNDS
        minimum = None if self.minimum in unsaid else self.minimum
        maximum = None if self.maximum in IMPLIED_BOUNDS else self.maximum
        if minimum is not None and maximum is not None and not self.excludes_minimum and not self.excludes_maximum:
            return f"from {_in_digits(minimum)} to {_in_digits(maximum)}"
        parts = []
        if minimum is not None:
            parts.append(f"{'above' if self.excludes_minimum else 'at least'} {_in_digits(minimum)}")
        if maximum is not None:
            parts.append(f"{'below' if self.excludes_maximum else 'at most'} {_in_digits(maximum)}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Parameter:
    """One generation parameter.

    Attributes:
        name: Its name in the contract, such as `top_p`.
        number: Its field's number.
        kind: `double`, `int32`, `int64`, `string`, `enum`, `strings` (a list of texts) or `number_by_token` (a map from
            token ids to numbers).
        enum: The name of its enum, where it is one; else empty.
        doc: What it means, in one paragraph.
        unit: What is counted, such as `tokens`; empty for a plain number.
        range: The bounds of a number, or of each number of a map.
        length: The bounds of a text's length in characters, or of each text's of a list.
        items: The bounds of the number of items of a list or a map.
        keys: The bounds of a map's keys.
    """

    name: str
    number: int
    kind: str
    enum: str
    doc: str
    unit: str
    range: Bounds | None
    length: Bounds | None
    items: Bounds | None
    keys: Bounds | None

    def range_in_words(self) -> str:
        """Returns the range in words, or `any 64-bit integer` where the type alone bounds it; empty without a range."""
        if self.range is None:
            return ""
        return self.range.in_words() or f"any {TYPE_BOUNDS[self.kind] + 1}-bit integer"


def read_table(descriptors: Path) -> list[Parameter]:
    """Reads the table from a descriptor set with source information.

    Args:
        descriptors: A file that `buf build --as-file-descriptor-set` wrote.

    Returns:
        The parameters in the contract's order.

    Raises:
        SystemExit: If a comment has a tag that cannot be read, or a field a type that no generator knows.
    """
    files = FileDescriptorSet.FromString(descriptors.read_bytes()).file
    file = next(file for file in files if file.name == FILE)
    index, message = next((i, item) for i, item in enumerate(file.message_type) if item.name == MESSAGE)
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    return [
        _parameter(field, comments.get((MESSAGES, index, FIELDS, position), ""), maps)
        for position, field in enumerate(message.field)
    ]


def _parameter(field: FieldDescriptorProto, comment: str, maps: Mapping[str, DescriptorProto]) -> Parameter:
    kind = _kind(field, maps)
    lines = [line.strip() for line in comment.strip().splitlines()]
    doc = " ".join(line for line in lines if not TAG.fullmatch(line))
    bounds, unit = _bounds(field.name, lines)
    if kind in TYPE_BOUNDS:
        limit = 2 ** TYPE_BOUNDS[kind]
        bounds.setdefault("Range", Bounds(-limit, limit - 1))
    enum = field.type_name.rpartition(".")[2] if kind == "enum" else ""
    return Parameter(
        name=field.name,
        number=field.number,
        kind=kind,
        enum=enum,
        doc=doc,
        unit=unit,
        range=bounds.get("Range"),
        length=bounds.get("Length"),
        items=bounds.get("Items"),
        keys=bounds.get("Keys"),
    )


def _kind(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    is_repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None and [member.type for member in entry.field] == [
        FieldDescriptorProto.TYPE_INT32,
        FieldDescriptorProto.TYPE_DOUBLE,
    ]:
        return "number_by_token"
    if is_repeated and field.type == FieldDescriptorProto.TYPE_STRING:
        return "strings"
    if is_repeated or field.type not in SCALARS:
        raise SystemExit(f"{MESSAGE}.{field.name}: no generator knows what to make of a field of its type")
    return SCALARS[field.type]


def _bounds(name: str, lines: Iterable[str]) -> tuple[dict[str, Bounds], str]:
    """Reads the tags among the lines of a field's comment."""
    bounds: dict[str, Bounds] = {}
    unit = ""
    for line in lines:
        if (tag := TAG.fullmatch(line)) is None:
            continue
        interval = INTERVAL.fullmatch(tag["rest"])
        if interval is None:
            raise SystemExit(f"{MESSAGE}.{name}: cannot read {line!r}; a bound is written like `Range: [0, 2].`")
        bounds[tag["name"]] = Bounds(
            _number(interval["minimum"]),
            _number(interval["maximum"]),
            excludes_minimum=interval["open"] == "(",
            excludes_maximum=interval["close"] == ")",
        )
        unit = interval["unit"] or unit
    return bounds, unit


def _number(text: str) -> float | int:
    return float(text) if "." in text else int(text)


def _in_digits(number: float) -> str:
    """Writes a number with commas between thousands: `1,024`, `0.5`, and `2` for 2.0 too."""
    return f"{int(number):,}" if number == int(number) else str(number)
