"""Log-probabilities of tokens, and the text that they belong to."""

from __future__ import annotations

from collections import deque

from abstractllm.providers.huggingface.protocol.messages import Logprob
from abstractllm.providers.huggingface.worker.parsing.answer_parser import TextPiece

__all__ = ["LogprobAligner", "TokenLogprobs"]

TokenLogprobs = tuple[float, list[int], list[float]]
"""The log-probability of the sampled token, the likeliest tokens, and their log-probabilities."""


class LogprobAligner:
    """Assigns the log-probabilities of tokens to the text that they are part of.

    There are two measures of place, both in characters. All that the model writes, reasoning and calls included, is
    *output*. The answer's *text* is a part of it. A token writes a span of output; it belongs to the text if a piece of
    text overlaps its span. Its log-probability is sent with the first piece of text that begins behind the token's
    beginning.
    """

    def __init__(self) -> None:
        self._unassigned: deque[tuple[int, int, Logprob]] = deque()
        """Tokens that may still turn out to be text: the span of output of each."""
        self._unsent: list[tuple[int, Logprob]] = []
        """Tokens of text that is not sent yet: the place in the text where each begins."""
        self._text_length = 0
        """Characters of text so far."""
        self._sent_length = 0
        """Characters of text that have been sent."""

    def add(self, begin: int, end: int, logprob: Logprob) -> None:
        """Takes a token that has written the output from `begin` to `end`; an empty span counts as one character."""
        self._unassigned.append((begin, max(end, begin + 1), logprob))

    def assign(self, piece: TextPiece) -> None:
        """Assigns the tokens that have written a piece of text; those before it have written something else."""
        while self._unassigned and self._unassigned[0][0] < piece.end:
            begin, end, logprob = self._unassigned.popleft()
            if end > piece.begin:
                self._unsent.append((self._text_length + max(0, begin - piece.begin), logprob))
        self._text_length += len(piece.text)

    def drop(self, settled: int) -> None:
        """Drops the tokens that have written what has turned out to be no text.

        Args:
            settled: The place in the output before which nothing can become text any more.
        """
        while self._unassigned and self._unassigned[0][1] <= settled:
            self._unassigned.popleft()

    def assign_rest(self, output_length: int) -> None:
        """Assigns to the end of the text the tokens that have written nothing at the end of the output."""
        self._unsent += [
            (self._text_length, logprob) for begin, _, logprob in self._unassigned if begin >= output_length
        ]

    def take(self, length: int, is_last: bool = False) -> tuple[Logprob, ...]:
        """Returns the log-probabilities to send with the next piece of text.

        Args:
            length: The characters of the piece.
            is_last: Whether it is the last piece, with which all the others are sent.
        """
        self._sent_length += length
        ready = tuple(logprob for begin, logprob in self._unsent if begin < self._sent_length or is_last)
        self._unsent = self._unsent[len(ready) :]
        return ready
