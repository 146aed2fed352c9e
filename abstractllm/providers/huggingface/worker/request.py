"""One request inside the engine process, and the message that says why it failed."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abstractllm.errors import AbstractLLMError, InternalError
from abstractllm.providers.huggingface.protocol.messages import Failed, Generate

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.structured.grammar import Matcher

__all__ = ["EngineRequest", "failure"]


@dataclass(eq=False)
class EngineRequest:
    """A request inside the engine."""

    request: Generate
    cancelled: bool = False
    prompt: tuple[int, ...] = ()
    max_tokens: int = 0
    """New tokens at most."""
    matcher: Matcher | None = None
    """Holds the answer to its format, if it has one."""
    is_reasoning: bool = False
    """Whether the prompt ends inside a reasoning block."""
    preamble: int | None = None
    """The token with which the answer may begin such a block, whatever its format is."""
    output_tokens: int = 0
    cached_tokens: int | None = None
    """Tokens of the prompt that were in the cache already, in a batch."""


def failure(request_id: int, error: Exception, output_tokens: int | None = None) -> Failed:
    """What is said of a request that failed; the full text of what was not foreseen goes to the log."""
    if not isinstance(error, AbstractLLMError):
        traceback.print_exception(error)
        error = InternalError(f"{type(error).__name__}: {error}")
    return Failed(
        request_id,
        error.reason,
        error.message,
        error.field,
        error.limit if isinstance(error.limit, (int, str)) else None,
        error.requested if isinstance(error.requested, (int, str)) else None,
        output_tokens,
    )
