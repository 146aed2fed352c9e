"""Compares what a runner observed with what its case expects.

An object with a single key that begins with `$` describes a value:

    {"$any": true}            whatever it is, but it is there
    {"$absent": true}         not there; within `$contains`
    {"$between": [0, 5]}      a number
    {"$matches": "^Paris"}    a string in which the pattern is found
    {"$repeats": "ab", "times": 3}   a long string, described (the only one with a second key)
    {"$contains": {...}}      an object that has at least these
    {"$each": ...}            a list, not empty, each of whose entries is this
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def differences(observed: Any, expected: Any, path: str = "observed") -> Iterator[str]:
    """Yields one line for each difference."""
    if isinstance(expected, dict) and (rule := next((key for key in expected if key.startswith("$")), None)):
        yield from _described(observed, rule, expected, path)
    elif isinstance(expected, dict) and isinstance(observed, dict):
        for key in expected.keys() | observed.keys():
            if key not in expected:
                yield f"{path}.{key}: not expected, got {observed[key]!r:.300}"
            elif key not in observed:
                yield f"{path}.{key}: missing, expected {expected[key]!r:.300}"
            else:
                yield from differences(observed[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(observed, list):
        if len(expected) != len(observed):
            yield f"{path}: {len(observed)} entries instead of {len(expected)}: {observed!r:.1000}"
        for index, (one, other) in enumerate(zip(observed, expected, strict=False)):
            yield from differences(one, other, f"{path}[{index}]")
    elif observed != expected or isinstance(observed, bool) is not isinstance(expected, bool):
        yield f"{path}: {observed!r:.1000} instead of {expected!r:.1000}"


def _described(observed: Any, rule: str, expected: dict[str, Any], path: str) -> Iterator[str]:
    value = expected[rule]
    match rule:
        case "$any":
            if observed is None:
                yield f"{path}: nothing there"
        case "$between":
            if not (isinstance(observed, int | float) and value[0] <= observed <= value[1]):
                yield f"{path}: {observed!r} is not between {value[0]} and {value[1]}"
        case "$matches":
            if not (isinstance(observed, str) and re.search(value, observed)):
                yield f"{path}: {observed!r:.500} does not match {value!r}"
        case "$repeats":
            if observed != value * expected["times"]:
                yield f"{path}: {observed!r:.100} instead of {value!r} x {expected['times']}"
        case "$contains":
            for key, wanted in value.items():
                if isinstance(wanted, dict) and wanted.get("$absent"):
                    if isinstance(observed, dict) and key in observed:
                        yield f"{path}.{key}: not expected, got {observed[key]!r:.300}"
                elif not isinstance(observed, dict) or key not in observed:
                    yield f"{path}.{key}: missing in {observed!r:.500}"
                else:
                    yield from differences(observed[key], wanted, f"{path}.{key}")
        case "$each":
            if not (isinstance(observed, list) and observed):
                yield f"{path}: {observed!r:.200} is not a list with entries"
            else:
                for index, one in enumerate(observed):
                    yield from differences(one, value, f"{path}[{index}]")
        case _:
            raise ValueError(f"no such rule: {rule}")
