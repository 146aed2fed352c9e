"""One request inside the engine process, and the message that reports its failure."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abstractllm.errors import AbstractLLMError, InternalError
from abstractllm.providers.huggingface.protocol.messages import Failed, Generate
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory, out_of_memory_error

if TYPE_CHECKING:  # importing torch takes seconds
    from abstractllm.providers.huggingface.worker.structured.matcher import Matcher

__all__ = ["EngineRequest", "failure_message"]


@dataclass(eq=False)
class EngineRequest:
    """One request for an answer, from its arrival in the engine process to its end."""

    message: Generate
    """The request as the provider has sent it."""
    cancelled: bool = False
    """True once its caller wants no more of it; it ends with its next token at the latest."""
    prompt: tuple[int, ...] = ()
    """The tokens of the prompt."""
    max_tokens: int = 0
    """The most tokens to generate."""
    format_key: bytes = b""
    """The key of the answer's format, once it waits to be compiled."""
    matcher: Matcher | None = None
    """The matcher of the answer's format; None without a format."""
    is_reasoning: bool = False
    """True if the prompt ends inside a reasoning block."""
    reasoning_start: int | None = None
    """The token with which the answer may begin a reasoning block, whatever its format is."""
    begun_at: float | None = None
    """The time at which its turn came, on the monotonic clock."""
    output_tokens: int = 0
    """Tokens generated so far."""
    cached_tokens: int | None = None
    """Tokens of the prompt whose keys and values were in the cache already; None outside a batch."""


def failure_message(request_id: int, error: Exception, output_tokens: int | None = None) -> Failed:
    """Returns the message that reports the failure of a request; an unforeseen error is logged with its traceback.

    That the device's memory was too little is no fault of the software, and may pass: it is OVERLOADED.

    Args:
        request_id: The request.
        error: The error that ended it.
        output_tokens: Tokens generated until then.
    """
    if not isinstance(error, AbstractLLMError):
        traceback.print_exception(error)
        is_memory = is_out_of_memory(error)
        error = out_of_memory_error(error) if is_memory else InternalError(f"{type(error).__name__}: {error}")
    return Failed(
        request_id,
        error.reason,
        error.message,
        error.field,
        error.limit if isinstance(error.limit, (int, str)) else None,
        error.requested if isinstance(error.requested, (int, str)) else None,
        output_tokens,
    )
