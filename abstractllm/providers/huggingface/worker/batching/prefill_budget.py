"""The number of tokens that a step takes: fewer than it may, where short prompts wait."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SHORT_PROMPT_TOKENS", "step_tokens"]

SHORT_PROMPT_TOKENS = 256
"""The longest prompt that counts as short, and the tokens of short prompts that are read in one step.

On a CPU a step takes twice as long for twice as many prompt tokens, and each prompt in it gets its first token at its
end. With half as many the first ones get theirs in half the time, and requests that come meanwhile wait half as long.
"""


def step_tokens(most: int, decoding: int, prompts: Iterable[int]) -> int:
    """Returns the tokens that the next step may take.

    A long prompt is read in as large pieces as a step may take: more of them would only cost more.

    Args:
        most: The tokens that a step may take.
        decoding: The requests with one new token, which come first.
        prompts: The tokens that are to be read of each prompt, in their order.
    """
    taken = decoding
    for tokens in prompts:
        if taken >= most:
            break
        if tokens > SHORT_PROMPT_TOKENS:
            return most
        taken += tokens
    return min(most, decoding + SHORT_PROMPT_TOKENS)
