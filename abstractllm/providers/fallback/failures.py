"""The failures of one LLM after another, and the one error that tells them."""

from __future__ import annotations

import copy

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.fallback.verdicts import VERDICTS, Verdict
from abstractllm.types import Attempt

__all__ = ["Failures"]

_MAX_MESSAGE = 300
"""Characters that the final error repeats of each LLM's message; the attempts hold the whole."""


class Failures:
    """The LLMs that have failed one request."""

    def __init__(self) -> None:
        self.attempts: tuple[Attempt, ...] = ()
        """Every one of them, oldest first."""
        self._errors: list[AbstractLLMError] = []
        self._messages: list[str] = []

    def add(self, name: str, error: AbstractLLMError, message: str, attempts: tuple[Attempt, ...]) -> None:
        """Adds the next failure.

        Args:
            name: The LLM that failed.
            error: Its error.
            message: The error's message, as callers may see it.
            attempts: The failure as attempts; several if the LLM is a fallback itself.
        """
        self.attempts += attempts
        self._errors.append(error)
        self._messages.append(f"{name}: {error.reason}: {message[:_MAX_MESSAGE]}")

    def last(self) -> AbstractLLMError:
        """Returns the last of the errors, with `attempts`."""
        last = copy.copy(self._errors[-1])
        last.attempts = self.attempts
        return last

    def error(self) -> AbstractLLMError:
        """Returns the most telling of the errors, with all of them in its message and `attempts`.

        A retryable one tells most, as the request may succeed later; then one of an LLM that could have honoured the
        request; of several the last. It asks to wait only if every LLM with a retryable error asks for that.
        """
        errors = self._errors
        retryable = [error for error in errors if error.retryable and not error.is_billed]
        able = [error for error in errors if VERDICTS[error.reason] is Verdict.NEXT]
        cause = (retryable or able or errors)[-1]
        error = copy.copy(cause)
        error.message = f"no LLM could answer; {'; '.join(self._messages)}"
        error.args = (error.message,)
        error.attempts = self.attempts
        waits = [error.retry_after for error in retryable]
        error.retry_after = None if None in waits else min((wait for wait in waits if wait is not None), default=None)
        error.__cause__ = cause
        return error
