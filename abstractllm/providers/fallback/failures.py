"""What went wrong while one LLM after another was asked, and the one error that tells it."""

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
        self._told: list[str] = []

    def add(self, name: str, error: AbstractLLMError, message: str, attempts: tuple[Attempt, ...]) -> None:
        """Takes the next failure.

        Args:
            name: The LLM that failed.
            error: How.
            message: What may be told of it.
            attempts: The failure as attempts; several if the LLM is a fallback itself.
        """
        self.attempts += attempts
        self._errors.append(error)
        self._told.append(f"{name}: {error.reason}: {message[:_MAX_MESSAGE]}")

    def last(self) -> AbstractLLMError:
        """The last of the errors, as it is, with `attempts`."""
        found = copy.copy(self._errors[-1])
        found.attempts = self.attempts
        return found

    def error(self) -> AbstractLLMError:
        """The most telling of the errors, with all of them in its message and `attempts`.

        One that may pass tells most, as the request may succeed later; then one of an LLM that could have honoured the
        request; of several the last. It asks to wait only if every LLM whose error may pass asks for that.
        """
        errors = self._errors
        passing = [error for error in errors if error.retryable]
        able = [error for error in errors if VERDICTS[error.reason] is Verdict.NEXT]
        telling = (passing or able or errors)[-1]
        found = copy.copy(telling)
        found.message = f"no LLM could answer; {'; '.join(self._told)}"
        found.args = (found.message,)
        found.attempts = self.attempts
        waits = [error.retry_after for error in passing]
        found.retry_after = None if None in waits else min((wait for wait in waits if wait is not None), default=None)
        found.__cause__ = telling
        return found
