"""The tokens that a request is expected to take, learned from those of earlier ones."""

from __future__ import annotations

__all__ = ["TokenEstimate"]

_MEMORY = 0.98
"""The weight of a request beside the next one."""
_INITIAL_CHARACTERS, _INITIAL_PROMPT_TOKENS = 4000.0, 1000.0
_INITIAL_ANSWER_TOKENS = 256.0


class TokenEstimate:
    """Tokens per character of prompts, and tokens of answers, as they were of late."""

    def __init__(self) -> None:
        self._characters, self._prompt_tokens = _INITIAL_CHARACTERS, _INITIAL_PROMPT_TOKENS
        self._answers, self._answer_tokens = 1.0, _INITIAL_ANSWER_TOKENS

    def prompt_tokens(self, characters: int) -> int:
        """Returns the tokens that a prompt of so many characters is expected to have, at least one."""
        return max(1, round(characters * self._prompt_tokens / self._characters))

    def answer_tokens(self, max_tokens: int | None) -> int:
        """Returns the tokens that an answer is expected to have."""
        mean = max(1, round(self._answer_tokens / self._answers))
        return mean if max_tokens is None else min(mean, max_tokens)

    def record(self, characters: int, prompt_tokens: int | None, answer_tokens: int | None) -> None:
        """Learns from an answer that is whole; None for what is not known."""
        if characters and prompt_tokens:
            self._characters = self._characters * _MEMORY + characters
            self._prompt_tokens = self._prompt_tokens * _MEMORY + prompt_tokens
        if answer_tokens is not None:
            self._answers = self._answers * _MEMORY + 1
            self._answer_tokens = self._answer_tokens * _MEMORY + answer_tokens
