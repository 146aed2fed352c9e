"""Draws many tokens with mixed settings and stops at the first one that may not be drawn.

    python -m benchmarks.sampled_tokens --tokens 10000000

A sampler that is wrong once in a hundred thousand tokens passes every small test, and spoils a text a day.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch

from abstractllm.providers.huggingface.worker.batching.sampler import draw
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState

_VOCABULARY = 320
_MIXED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 1.8},
    {"top_k": 20},
    {"top_k": 300, "top_p": 0.9},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "min_p": 0.01},
]


def draw_many(count: int, batch: int) -> int:
    """Draws tokens from a distribution in which every third token is impossible.

    Args:
        count: How many tokens at least.
        batch: Rows at a time.

    Returns:
        How many were drawn.

    Raises:
        AssertionError: If one of them is impossible, or its log-probability is no number.
    """
    logits = torch.randn(_VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
    logits[::3] = -math.inf
    rows = [_row(seed, **_MIXED[seed % len(_MIXED)]) for seed in range(batch)]
    drawn = 0
    while drawn < count:
        for row, token in zip(rows, draw(logits.repeat(batch, 1), rows), strict=True):
            assert 0 <= token < _VOCABULARY and token % 3, f"token {token} of {row}"
            assert row.report is None or math.isfinite(row.report[0]), f"log-probability {row.report} of {row}"
        drawn += batch
    return drawn


def _row(seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> SamplingState:
    return SamplingState(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition=1.0,
        presence=0.0,
        frequency=0.0,
        bias={},
        seed=seed,
        logprobs=0 if seed % 40 == 0 else None,
    )


def main() -> None:
    """Draws, and says how many and how fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=4000)
    arguments = parser.parse_args()
    began = time.perf_counter()
    drawn = draw_many(arguments.tokens, arguments.batch)
    seconds = time.perf_counter() - began
    print(f"{drawn} tokens in {seconds:.0f} s, all allowed")


if __name__ == "__main__":
    main()
