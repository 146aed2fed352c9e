"""The faults of JSON schemas, with the place of each."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SchemaError", "pointer_text"]

_LONGEST_POINTER = 300


class SchemaError(Exception):
    """A schema that answers cannot be held to.

    Args:
        pointer: The place in the schema: its keys and indices, from the root.
        reason: The fault, in words that go on after the place.
        limit: The limit that the schema is beyond, if the fault is one.
    """

    def __init__(self, pointer: Iterable[str | int], reason: str, limit: str | None = None) -> None:
        self.pointer = tuple(pointer)
        self.reason = reason
        self.limit = limit
        super().__init__(f"{pointer_text(self.pointer)}: {reason}")


def pointer_text(pointer: Iterable[str | int]) -> str:
    """Returns a place as a JSON pointer in a URI fragment, such as `#/properties/a`, shortened where it is long."""
    text = "#" + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in pointer)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _LONGEST_POINTER else text[: _LONGEST_POINTER - 3] + "..."
