"""The errors of formats that cannot be used."""

from __future__ import annotations

from abstractllm.errors import InvalidRequestError
from abstractllm.providers.huggingface.worker.structured.sandbox import LIMITS

__all__ = ["invalid_format"]

_LIMIT_BY_PHRASE = {
    "to compile": "3 seconds of processor time",
    "recursion limit": "128 levels of nesting",
    "recursion depth": "1000 levels of nesting",
    "items; max is": f"{LIMITS['max_items_in_row']} alternatives at a place",
    "many items": f"{LIMITS['step_max_items']} parser items a token",
    "many states": f"{LIMITS['max_lexer_states']} lexer states",
    "many expressions": "expressions in the lexer",
    "exhausted": "steps of the lexer",
    "too large": f"{LIMITS['max_grammar_size']} symbols",
    "too big": f"{LIMITS['max_grammar_size']} symbols",
    "TooComplex": "steps of the parser",
}
"""The limits, by phrases of llguidance's errors about them."""


def invalid_format(field: str, reason: str) -> InvalidRequestError:
    """Returns the error of a format that is malformed, unsatisfiable or too complex.

    Args:
        field: The field of the request that the format comes from.
        reason: llguidance's error; if it is about a limit, the error names the limit.
    """
    text = " ".join(reason.replace("<non-verbose/>", "").split())[:500]
    limit = next((limit for phrase, limit in _LIMIT_BY_PHRASE.items() if phrase in reason), None)
    if limit is not None:
        text = f"it is too complex: {text}"
    return InvalidRequestError(f"{field}: {text}", field=field, limit=limit)
