"""The capabilities that several LLMs have together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from abstractllm.types import Capabilities

__all__ = ["together"]


def together(known: Sequence[Capabilities]) -> Capabilities:
    """Returns the capabilities that hold whichever LLM answers.

    An ability, a parameter or an option that all have; the smallest window and output limit, unknown if any of them is;
    the quantization and the device if they are the same. Tokens can be counted if any LLM can, since that one is asked;
    requests that run at once add up.

    Args:
        known: The capabilities of at least one LLM.
    """
    first = known[0]
    shared: dict[str, Any] = {}
    for field in dataclasses.fields(Capabilities):
        values = [getattr(one, field.name) for one in known]
        match values[0]:
            case bool():
                shared[field.name] = all(values)
            case tuple():
                shared[field.name] = tuple(name for name in values[0] if all(name in value for value in values))
            case str():
                shared[field.name] = values[0] if len(set(values)) == 1 else ""
    for name, fold in (("context_window", min), ("max_output_tokens", min), ("max_concurrent_requests", sum)):
        values = [getattr(one, name) for one in known]
        shared[name] = None if None in values else fold(values)
    return dataclasses.replace(first, **shared | {"token_counting": any(one.token_counting for one in known)})
