"""Errors that cross from one process, or from one caller, to another."""

from __future__ import annotations

from abstractllm.errors import AbstractLLMError

__all__ = ["copy_error"]


def copy_error(error: AbstractLLMError) -> AbstractLLMError:
    """Returns the same error for another caller: each is filled with its request's id, and has its own traceback."""
    return type(error)(
        error.message,
        field=error.field,
        limit=error.limit,
        requested=error.requested,
        retry_after=error.retry_after,
        upstream_status=error.upstream_status,
    )
