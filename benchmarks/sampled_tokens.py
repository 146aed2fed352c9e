"""Samples many tokens with mixed settings and stops at the first one that is impossible.

    python -m benchmarks.sampled_tokens --tokens 10000000

A sampler that is wrong once in a hundred thousand tokens passes every small test, and spoils a text a day.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import Any

import torch

from abstractllm.providers.huggingface.worker.batching.sampler import sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from benchmarks.results import Results, figure, positive, run, versions

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


def sample_many(count: int, batch: int) -> int:
    """Samples tokens from a distribution in which every third token is impossible.

    Args:
        count: The number of tokens at least.
        batch: Tokens at a time.

    Returns:
        The number of tokens that were sampled.

    Raises:
        AssertionError: If one of them is impossible, or its log-probability is not a number.
    """
    logits = torch.randn(_VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
    logits[::3] = -math.inf
    states = [_state(seed) for seed in range(batch)]
    sampled = 0
    while sampled < count:
        for state, token in zip(states, sample(logits.repeat(batch, 1), states), strict=True):
            assert 0 <= token < _VOCABULARY and token % 3, f"token {token} of {state}"
            assert state.logprobs is None or math.isfinite(state.logprobs[0]), (
                f"log-probability {state.logprobs} of {state}"
            )
        sampled += batch
    return sampled


def _state(seed: int) -> SamplingState:
    settings = SamplingSettings(**_MIXED[seed % len(_MIXED)])
    return SamplingState(settings, seed, top_logprobs=0 if seed % 40 == 0 else None)


def measure(options: argparse.Namespace) -> Results:
    """Samples, and measures the time."""
    began = time.perf_counter()
    sampled = sample_many(options.tokens, options.batch)
    rate = sampled / (time.perf_counter() - began)
    notes = [f"{sampled:,} tokens were sampled, all of them possible."]
    return Results([figure("Sampling", "mixed settings", "tokens/s", [rate])], versions("torch"), notes)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.sampled_tokens", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=positive, default=10_000_000)
    parser.add_argument("--batch", type=positive, default=4000)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
