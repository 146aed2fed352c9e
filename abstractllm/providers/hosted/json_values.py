"""Reading the values of a provider's JSON, which may be anything; what cannot be read raises what Python raises."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from abstractllm.types import TokenLogprob, TopLogprob
from abstractllm.validation import replace_surrogates

__all__ = [
    "UNREADABLE",
    "read_count",
    "read_logprob",
    "read_logprobs",
    "read_optional_text",
    "read_text",
    "text_in",
    "unique_call_id",
]

UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""The errors that reading JSON of another shape than the documented one ends in."""

_UNKNOWN_TOKEN = -1
"""The id of a token of which an API gives the text alone."""
_MOST_TOKENS = 10**12
_TEXT_FIELDS = ("text", "content", "thinking", "reasoning", "summary")
"""The fields in which an object may hold its text; the first that has some is read."""


def read_text(value: object) -> str:
    """Returns a text; surrogates, which JSON may hold, are left to the LLM's executor, which sees the next piece.

    Raises:
        TypeError: If it is not a string.
    """
    if not isinstance(value, str):
        raise TypeError(f"text is expected, not {type(value).__name__}")
    return value


def read_optional_text(value: object) -> str:
    """Returns a text as `read_text` does; an empty one for None.

    Raises:
        TypeError: If it is neither a string nor None.
    """
    return "" if value is None else read_text(value)


def text_in(value: object) -> str:
    """Returns the text that a value holds, whatever shape it has; an empty one if there is none.

    Servers give what a model thought as text, as an object with the text in one of its fields, or as a list of both.
    """
    match value:
        case str():
            return value
        case list():
            return "".join(map(text_in, value))
        case Mapping():
            return next((text for name in _TEXT_FIELDS if (text := text_in(value.get(name)))), "")
    return ""


def unique_call_id(call_id: str, taken: set[str]) -> str:
    """Returns the id of a call, which is then taken; another one where the server gave none, or gave it twice.

    Args:
        call_id: The id that the server gave; empty if it gave none.
        taken: The ids of the answer's other calls; the new one is added.
    """
    if not call_id or call_id in taken:
        call_id = f"call_{uuid.uuid4().hex}"
    taken.add(call_id)
    return call_id


def read_count(value: object) -> int | None:
    """Returns a number of tokens; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= _MOST_TOKENS else None


def read_logprob(token: Mapping[str, Any]) -> TokenLogprob:
    """Returns a token's log-probability and those of its alternatives, from the shape that OpenAI's API gave them.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: If it has another shape.
    """
    alternatives = token.get("top_logprobs") or ()
    if isinstance(alternatives, Mapping):  # of the older form: text to log-probability
        alternatives = [{"token": text, "logprob": logprob} for text, logprob in alternatives.items()]
    return TokenLogprob(*_read_token(token), tuple(TopLogprob(*_read_token(other)) for other in alternatives))


def read_logprobs(logprobs: Any) -> tuple[TokenLogprob, ...]:
    """Returns the log-probabilities of a choice, in the forms of Chat Completions and of the older Completions.

    Tokens whose log-probability cannot be read are left out: they cost themselves, not the answer.
    """
    match logprobs:
        case {"tokens": list(tokens), "token_logprobs": list(values)}:
            tops = logprobs.get("top_logprobs")
            tops = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
            entries: list[Any] = [
                {"token": token, "logprob": value, "top_logprobs": top}
                for token, value, top in zip(tokens, values, tops, strict=False)
            ]
        case Mapping():
            lists = (logprobs.get(name) for name in ("content", "refusal"))
            entries = [entry for entry_list in lists if isinstance(entry_list, list) for entry in entry_list]
        case list():
            entries = logprobs
        case _:
            entries = []
    tokens_read = []
    for entry in entries:
        try:
            tokens_read.append(read_logprob(entry))
        except (*UNREADABLE, OverflowError):
            continue
    return tuple(tokens_read)


def _read_token(token: Mapping[str, Any]) -> tuple[int, str, bytes, float]:
    text, number = replace_surrogates(read_text(token["token"])), token.get("id")  # llama.cpp tells the id
    is_id = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**31
    return (
        int(number or 0) if is_id else _UNKNOWN_TOKEN,
        text,
        _read_bytes(token.get("bytes"), text),
        float(token["logprob"]),
    )


def _read_bytes(value: object, text: str) -> bytes:
    try:
        return bytes(value) if isinstance(value, list) else text.encode()
    except (TypeError, ValueError):  # not a list of bytes
        return text.encode()
