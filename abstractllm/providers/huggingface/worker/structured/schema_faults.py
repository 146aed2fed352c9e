"""Finding the part of a JSON schema because of which the whole cannot be compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from abstractllm.providers.huggingface.worker.structured.sandbox import Trial
from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError, pointer_text
from abstractllm.providers.huggingface.worker.structured.schema_preparation import PreparedSchema
from abstractllm.providers.huggingface.worker.structured.schema_references import Pointer

__all__ = ["find_fault"]

_MOST_TRIALS = 200
_SECONDS = 2.0
"""The processor time for finding a place: the parts may take longer than the whole, which one of them refuses."""
_OVERLAP = "oneOf constraints are not supported"
"""The beginning of llguidance's error, which goes on with an option that callers do not have."""
_OVERLAP_IN_WORDS = (
    "its schemas may overlap, and local models cannot hold answers to exactly one of them: they tell them apart by "
    "type, or by the const or enum of a property; anyOf takes any"
)
_DEFINITION = re.compile(r"#/\$defs/(\d+)")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties")
_SINGLE = ("additionalProperties", "additionalItems", "items")


def find_fault(prepared: PreparedSchema, error: str, compile: Callable[[Any], Trial]) -> SchemaError:
    """Returns the error of a schema with the place of its fault: the smallest part that fails in the same way.

    Args:
        prepared: The schema.
        error: The reason why it cannot be compiled.
        compile: Tries to compile a schema.
    """
    shared = {key: prepared.schema[key] for key in ("$schema", "$defs") if key in prepared.schema}
    seconds = 0.0

    def fails(schema: Any) -> bool:
        nonlocal seconds
        if seconds > _SECONDS or not isinstance(schema, dict):
            return False
        trial = compile(schema | shared)
        seconds += trial.seconds + _SECONDS / _MOST_TRIALS
        return _core(trial.error) == _core(error)

    part: dict[str, Any] = {key: value for key, value in prepared.schema.items() if key not in shared}
    place: Pointer = ()
    seen = {place}
    while smaller := next(
        (smaller for smaller in _parts(part, place, prepared) if smaller[1] not in seen and fails(smaller[0])), None
    ):
        part, place = smaller
        seen.add(place)
    keywords = [
        keyword
        for keyword in part
        if keyword != "type" and not fails({key: value for key, value in part.items() if key != keyword})
    ]
    where = (*place, *keywords) if len(keywords) == 1 and seconds <= _SECONDS else place
    if error.startswith(_OVERLAP):
        return SchemaError(where, _OVERLAP_IN_WORDS)
    return SchemaError(where, _with_own_places(error, prepared))


def _parts(schema: dict[str, Any], place: Pointer, prepared: PreparedSchema) -> Iterator[tuple[Any, Pointer]]:
    """Yields the schemas inside a schema, and those that it refers to, with their places."""
    for keyword, value in schema.items():
        if keyword in _MAPS:
            yield from ((part, (*place, keyword, name)) for name, part in value.items())
        elif keyword in _LISTS or (keyword in _SINGLE and isinstance(value, list)):
            yield from ((part, (*place, keyword, index)) for index, part in enumerate(value))
        elif keyword in _SINGLE:
            yield value, (*place, keyword)
        elif keyword == "$ref":
            name = value.rpartition("/")[2]
            yield prepared.schema["$defs"][name], prepared.places[name]


def _core(error: str) -> str:
    """Returns an error without the definition that llguidance was at."""
    return error.partition("\n  while processing")[0]


def _with_own_places(error: str, prepared: PreparedSchema) -> str:
    """Returns llguidance's error, in which definitions are named by their places in the caller's schema."""
    return _DEFINITION.sub(lambda match: pointer_text(prepared.places.get(match[1], ("$defs", match[1]))), error)
