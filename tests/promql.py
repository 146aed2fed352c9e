"""Queries in PromQL, taken apart as far as the names in them: metrics, the labels of selectors, and those of `by`.

It takes what the dashboard and the alert rules are written in, which is less than Prometheus does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*") | (?P<range>\[[^\]]*\]) | (?P<number>[0-9][0-9a-z.]*)
    | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*) | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){},]) )""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "unless", "offset", "bool"}
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass
class Query:
    """The names in a query."""

    selectors: list[tuple[str, set[str]]] = field(default_factory=list)
    """Each metric, with the labels that it is selected by."""
    labels: set[str] = field(default_factory=set)
    """The labels that series are grouped or matched by."""


def parse(text: str) -> Query:
    """Takes a query apart; variables of the dashboard count as any text.

    Raises:
        ValueError: If it cannot be read.
    """
    query = Query()
    tokens = list(_tokens(re.sub(r"\$\{?\w+\}?", "5m", text)))
    position = 0
    while position < len(tokens):
        kind, value = tokens[position]
        position += 1
        if kind != "name" or value in _WORDS:
            continue
        following = tokens[position][1] if position < len(tokens) else ""
        if value in _LABEL_LISTS:
            names, position = _list(tokens, position, "(", ")")
            query.labels |= names
        elif following == "{":
            names, position = _list(tokens, position, "{", "}")
            query.selectors.append((value, names))
        elif following != "(" and not (position < len(tokens) and tokens[position][1] in _LABEL_LISTS):
            query.selectors.append((value, set()))
    return query


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text[position : position + 40]!r} of {text!r}")
        position = match.end()
        kind = match.lastgroup or ""
        yield kind, match[kind]


def _list(tokens: list[tuple[str, str]], position: int, opening: str, closing: str) -> tuple[set[str], int]:
    """Returns the names between two signs, and the position behind them."""
    if tokens[position][1] != opening:
        raise ValueError(f"{opening} is missing before {tokens[position][1]}")
    names = set()
    while tokens[position][1] != closing:
        position += 1
        if tokens[position][0] == "name":
            names.add(tokens[position][1])
    return names, position + 1
