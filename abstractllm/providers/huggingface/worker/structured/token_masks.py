"""Masks: one bit for each token of a vocabulary, packed into bytes."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache

import torch
from llguidance import LLExecutor

__all__ = ["TokenMasks", "logit_changes", "tokens_in"]

_BITS = torch.arange(8, dtype=torch.uint8)


class TokenMasks:
    """The masks that the formats of one model share.

    Args:
        size: Bits of a mask at least.
        text: The tokens that a caller's format may allow at all: text, and the tokens that end an answer.
        markers: The special tokens that the format of a tool call may allow, too.
        unconstrained: The tokens that may come while a format does not apply yet.
    """

    def __init__(
        self, size: int, *, text: Collection[int], markers: Collection[int], unconstrained: Collection[int]
    ) -> None:
        self.text = _mask_of(size, text)
        """`[bytes]`."""
        self.text_and_markers = _mask_of(size, (*text, *markers))
        """`[bytes]`."""
        self.unconstrained = _mask_of(size, unconstrained)
        """`[bytes]`."""
        self.executor = LLExecutor()
        """Computes the masks of several requests at once."""
        self._buffer = torch.zeros((0, len(self.text)), dtype=torch.uint8)

    def buffer(self, count: int) -> torch.Tensor:
        """Returns room for the masks of one step, `[count, bytes]`, until the next call.

        It is kept from step to step; to be used from the one thread that samples.
        """
        if len(self._buffer) < count:
            self._buffer = self._buffer.new_zeros((count, self._buffer.shape[1]))
        return self._buffer[:count]


@cache
def logit_changes(device: torch.device) -> torch.Tensor:
    """Returns, for each byte of a mask, the numbers that are added to the logits of its eight tokens, `[256, 8]`."""
    return torch.where(torch.arange(256)[:, None] >> torch.arange(8) & 1 > 0, 0.0, -math.inf).to(device)


def tokens_in(mask: torch.Tensor) -> list[int]:
    """Returns the tokens whose bits are set in a mask, in ascending order."""
    tokens: list[int] = (logit_changes(mask.device)[mask.long()].flatten() == 0).nonzero().squeeze(1).tolist()
    return tokens


def _mask_of(size: int, tokens: Collection[int]) -> torch.Tensor:
    """Returns the mask of some tokens, in whole words of 32 bits, as llguidance writes masks."""
    bits = torch.zeros(-(-size // 32) * 32, dtype=torch.uint8)
    bits[list(tokens)] = 1
    return (bits.view(-1, 8) << _BITS).sum(dim=1, dtype=torch.uint8)
