"""The tokens that a request is expected to take, learned from those of earlier ones."""

from __future__ import annotations

import math

__all__ = ["TokenEstimate"]

_MEMORY = 0.98
"""The weight of a request beside the next one."""
_INITIAL_CHARACTERS, _INITIAL_PROMPT_TOKENS = 400.0, 100.0
_INITIAL_ENDS, _INITIAL_ANSWER_TOKENS = 0.1, 25.6
"""They count less than the first answer."""
_LEAST_ENDS = 0.01
"""The least sum of ends: where every answer is cut off for weeks, the expected length stays a number."""
_MOST_MEANS = 3.0
"""Answers of three times the mean are longer than 95 of 100, if each next token is as likely to be the last."""


class TokenEstimate:
    """Tokens per character of prompts, and the chance of an answer to end with its next token, as they were of late.

    Of an answer that was cut off at its `max_tokens` it is known only that it would have been longer.
    """

    def __init__(self) -> None:
        self._characters, self._prompt_tokens = _INITIAL_CHARACTERS, _INITIAL_PROMPT_TOKENS
        self._ends, self._answer_tokens = _INITIAL_ENDS, _INITIAL_ANSWER_TOKENS

    def prompt_tokens(self, characters: int) -> int:
        """Returns the tokens that a prompt of so many characters is expected to have, at least one."""
        return max(1, round(characters * self._prompt_tokens / self._characters))

    def answer_tokens(self, max_tokens: int | None) -> int:
        """Returns the tokens that an answer is expected to have."""
        mean = self._answer_tokens / self._ends
        return round(mean if max_tokens is None else -mean * math.expm1(-max_tokens / mean))

    def most_answer_tokens(self, max_tokens: int | None) -> int:
        """Returns the tokens that an answer will hardly exceed."""
        most = math.ceil(_MOST_MEANS * self._answer_tokens / self._ends)
        return most if max_tokens is None else min(most, max_tokens)

    def record(self, characters: int, prompt_tokens: int | None, answer_tokens: int, max_tokens: int | None) -> None:
        """Learns from an answer that is whole; None for what is not known."""
        if characters and prompt_tokens:
            self._characters = self._characters * _MEMORY + characters
            self._prompt_tokens = self._prompt_tokens * _MEMORY + prompt_tokens
        has_ended = max_tokens is None or answer_tokens < max_tokens
        self._ends = max(_LEAST_ENDS, self._ends * _MEMORY + has_ended)
        self._answer_tokens = self._answer_tokens * _MEMORY + answer_tokens
