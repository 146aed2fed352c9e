"""The JSON schemas inside a grammar."""

from __future__ import annotations

import json
import re

from abstractllm.providers.huggingface.worker.structured.schema_numbers import SCHEMA_DECODER
from abstractllm.providers.huggingface.worker.structured.schema_preparation import prepare_schema

__all__ = ["prepare_grammar"]

_PIECE = re.compile(
    r"""
    "(?:\\.|[^"\\\n])*" | <[^<>\s]+> | (?:\#|//)[^\n]* | /(?:\\.|[^/\\])+/   # what may hold the directive as a text
    | (?P<directive>%json)
    """,
    re.VERBOSE,
)
"""The tokens of llguidance's dialect of Lark that matter here."""
_WHITE_SPACE = re.compile(r"\s*")


def prepare_grammar(grammar: str) -> str:
    """Returns a grammar with each JSON schema in it as llguidance takes it; the options of a schema stay its own.

    Raises:
        SchemaError: If answers cannot be held to one of them.
    """
    parts, end = [], 0
    while piece := _next_directive(grammar, end):
        start = _WHITE_SPACE.match(grammar, piece.end()).end()  # type: ignore[union-attr]  # it matches everywhere
        parts.append(grammar[end:start])
        try:
            schema, end = SCHEMA_DECODER.raw_decode(grammar, start)
        except (ValueError, RecursionError):
            return grammar  # llguidance says what is wrong with it
        if isinstance(schema, dict):
            chosen = schema.get("x-guidance", {})
            is_lenient = isinstance(chosen, dict) and chosen.get("lenient") is True
            prepared = prepare_schema(schema, is_lenient=is_lenient)
            if prepared.inexact:
                raise prepared.inexact[0]
            schema = prepared.schema | {"x-guidance": prepared.options | chosen if isinstance(chosen, dict) else chosen}
        parts.append(json.dumps(schema))
    return "".join(parts) + grammar[end:]


def _next_directive(grammar: str, start: int) -> re.Match[str] | None:
    return next((piece for piece in _PIECE.finditer(grammar, start) if piece["directive"]), None)
