"""The errors of formats that cannot be used."""

from __future__ import annotations

from abstractllm.errors import AbstractLLMError, InternalError, InvalidRequestError
from abstractllm.providers.huggingface.worker.structured.sandbox import LIMITS

__all__ = ["complex_format", "failed_step", "invalid_format"]

_LONGEST_REASON = 800
_LIMITS_OF_STEPS = {
    "items; max is": f"{LIMITS['max_items_in_row']} alternatives at a place",
    "many items": f"{LIMITS['step_max_items']} parser items a token",
    "many states": f"{LIMITS['max_lexer_states']} lexer states",
    "fuel": f"{LIMITS['step_lexer_fuel']} steps of the lexer a token",
    "exhausted": f"{LIMITS['step_lexer_fuel']} steps of the lexer a token",
    "many expressions": f"{LIMITS['step_lexer_fuel']} steps of the lexer a token",
    "TooComplex": "steps of the parser",
}
"""The limits of a step, by phrases of llguidance's errors about them, which hold nothing of the format."""


def invalid_format(field: str, reason: str, limit: str | None = None) -> InvalidRequestError:
    """Returns the error of a format that is malformed, unsatisfiable or too complex.

    Args:
        field: The field of the request that the format comes from.
        reason: The fault.
        limit: The limit that the format is beyond, or the one of the value, if that is the fault.
    """
    text = " ".join(reason.replace("<non-verbose/>", "").split())[:_LONGEST_REASON]
    return InvalidRequestError(f"{field}: {text}", field=field, limit=limit)


def complex_format(field: str, reason: str, limit: str) -> InvalidRequestError:
    """Returns the error of a format that is beyond a limit of its compiler."""
    return invalid_format(field, f"it is too complex: {reason}", limit)


def failed_step(field: str, reason: str) -> AbstractLLMError:
    """Returns the error of a format that was compiled, and could not be followed at a step of the answer.

    Args:
        field: The field of the request that the format comes from.
        reason: llguidance's error.
    """
    limit = next((limit for phrase, limit in _LIMITS_OF_STEPS.items() if phrase in reason), None)
    return InternalError(f"{field}: {reason}") if limit is None else complex_format(field, reason, limit)
