"""Resolving the references inside a JSON schema, and finding those that never end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from abstractllm.providers.huggingface.worker.structured.schema_errors import SchemaError

__all__ = ["Pointer", "References", "can_be_finite"]

Pointer = tuple[str | int, ...]
"""A place in a document: keys and indices, from the root."""

_VALUES = ("const", "enum", "default", "examples")
"""Keywords that hold values, in which nothing is a schema."""
_DRAFT_4 = ("http://json-schema.org/draft-04/schema", "http://json-schema.org/draft-04/schema#")


class References:
    """The places in a schema that references may name.

    Args:
        document: The whole schema.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        is_draft_4 = isinstance(document, dict) and document.get("$schema") in _DRAFT_4
        self._id_keyword = "id" if is_draft_4 else "$id"
        self._resources: dict[str, Pointer] = {"": ()}
        self._anchors: dict[tuple[str, str], Pointer] = {}
        self._bases: dict[Pointer, str] = {(): ""}
        self._scan(document, (), "")

    def _scan(self, node: Any, pointer: Pointer, base: str) -> None:
        if isinstance(node, list):
            for index, item in enumerate(node):
                self._scan(item, (*pointer, index), base)
        if not isinstance(node, dict):
            return
        name = node.get(self._id_keyword)
        if isinstance(name, str) and name.startswith("#"):
            self._anchors.setdefault((base, name[1:]), pointer)
        elif isinstance(name, str):
            base = urldefrag(urljoin(base, name)).url
            self._resources.setdefault(base, pointer)
            self._bases[pointer] = base
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(node.get(keyword), str):
                self._anchors.setdefault((base, node[keyword]), pointer)
        for key, value in node.items():
            if key not in _VALUES or pointer[-1:] == ("properties",):
                self._scan(value, (*pointer, key), base)

    def resolve(self, reference: str, pointer: Pointer) -> tuple[Pointer, Any]:
        """Returns the place that a reference names, and the schema there.

        Args:
            reference: The reference.
            pointer: The place of the schema that contains it.

        Raises:
            SchemaError: If the reference names nothing in this document.
        """
        base = self._base_of(pointer)
        is_fragment = reference.startswith("#")
        resource, fragment = urldefrag(reference if is_fragment else urljoin(base, reference))
        start = self._resources.get(base if is_fragment else resource)
        if start is None:
            raise SchemaError((*pointer, "$ref"), f"it names another document, {reference!r:.200}: nothing is fetched")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            anchor = self._anchors.get((base if is_fragment else resource, fragment))
            if anchor is None:
                raise SchemaError((*pointer, "$ref"), f"there is no anchor {fragment!r:.200}")
            return anchor, self._at(anchor, reference, pointer)
        steps = fragment.split("/")[1:] if fragment not in ("", "/") else []
        target: Pointer = (*start, *(step.replace("~1", "/").replace("~0", "~") for step in steps))
        return target, self._at(target, reference, pointer)

    def _base_of(self, pointer: Pointer) -> str:
        return next(self._bases[pointer[:end]] for end in range(len(pointer), -1, -1) if pointer[:end] in self._bases)

    def _at(self, target: Pointer, reference: str, pointer: Pointer) -> Any:
        node = self._document
        for step in target:
            try:
                node = node[int(step)] if isinstance(node, list) else node[step]
            except (KeyError, IndexError, TypeError, ValueError):
                raise SchemaError((*pointer, "$ref"), f"there is nothing at {reference!r:.200}") from None
        return node


def can_be_finite(root: Any, definitions: Mapping[str, Any]) -> bool:
    """Returns False if no answer can end: each one would have to contain another one of the same kind, for ever.

    Args:
        root: The schema.
        definitions: The schemas that references name, by the references.
    """
    finite: set[str] = set()
    while True:
        more = {name for name, schema in definitions.items() if name not in finite and _ends(schema, finite)}
        if not more:
            return _ends(root, finite)
        finite |= more


def _ends(schema: Any, finite: set[str]) -> bool:
    """Returns True if the schema allows an answer that ends, or may do so; references that do are in `finite`."""
    if not isinstance(schema, dict):
        return True
    if "$ref" in schema and schema["$ref"] not in finite:
        return False
    if not all(_ends(part, finite) for part in schema.get("allOf", ())):
        return False
    for keyword in ("anyOf", "oneOf"):
        if schema.get(keyword) and not any(_ends(part, finite) for part in schema[keyword]):
            return False
    if "const" in schema or "enum" in schema:
        return True
    match schema.get("type"):
        case "object" | ["object"]:
            properties = schema.get("properties", {})
            rest = schema.get("additionalProperties", True)
            return all(_ends(properties.get(name, rest), finite) for name in schema.get("required", ()))
        case "array" | ["array"]:
            count, items = schema.get("minItems", 0), schema.get("items", True)
            first = schema.get("prefixItems", items if isinstance(items, list) else [])
            rest = schema.get("additionalItems", True) if isinstance(items, list) else items
            return all(_ends(item, finite) for item in first[:count]) and (len(first) >= count or _ends(rest, finite))
    return True
