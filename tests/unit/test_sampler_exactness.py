"""The sampler under any combination of parameters: against transformers' processors, in distribution, and in bulk."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from abstractllm.providers.huggingface.worker.batching.sampler import sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, TokenCounts
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings
from benchmarks.sampled_tokens import sample_many
from tests.unit.test_sampler import SETTINGS, chi_square, expected, state

EDGE = 1e-4
"""The most that a cumulative probability may be off: where it meets `top_p`, rounding decides about a token."""


def processed(logits: torch.Tensor, wish: SamplingSettings, prompt: list[int], generated: list[int]) -> torch.Tensor:
    """The logits after bias and penalties: the repetition penalty is transformers', the others as in OpenAI's API."""
    scores = logits.clone()
    for token, value in wish.logit_bias.items():
        scores[0, token] += value
    if wish.repetition_penalty != 1.0 and prompt + generated:
        scores = RepetitionPenaltyLogitsProcessor(wish.repetition_penalty)(torch.tensor([prompt + generated]), scores)
    for token in set(generated):
        scores[0, token] -= wish.presence_penalty + wish.frequency_penalty * generated.count(token)
    return scores


def support(scores: torch.Tensor, wish: SamplingSettings, top_p: float) -> set[int]:
    """The tokens that transformers' processors keep."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(wish.temperature)])
    if wish.top_k:
        warpers.append(TopKLogitsWarper(wish.top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if wish.min_p:
        warpers.append(MinPLogitsWarper(wish.min_p))
    kept = warpers(torch.zeros(1, 1, dtype=torch.long), scores)[0]
    return set((kept > -math.inf).nonzero().flatten().tolist())


Case = tuple[torch.Tensor, SamplingSettings, int | None, list[int], list[int]]
"""Raw logits, settings, the number of log-probabilities, the prompt, and what was generated before."""


@st.composite
def cases(draw: Any) -> Case:
    size = draw(st.integers(2, 700))
    tokens = st.integers(0, size - 1)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(1, size, generator=generator) * draw(st.sampled_from([0.01, 0.5, 2.0, 8.0]))
    wish = SamplingSettings(
        temperature=draw(st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7])),
        top_k=draw(st.one_of(st.just(0), st.integers(1, size + 5))),
        top_p=draw(st.one_of(st.just(1.0), st.floats(0.01, 0.99))),
        min_p=draw(st.one_of(st.just(0.0), st.floats(0.01, 1.0))),
        repetition_penalty=draw(st.sampled_from([1.0, 0.7, 1.3, 2.0])),
        presence_penalty=draw(st.sampled_from([0.0, -1.5, 0.5, 2.0])),
        frequency_penalty=draw(st.sampled_from([0.0, -0.5, 0.3, 2.0])),
        logit_bias=draw(st.dictionaries(tokens, st.floats(-100, 100), max_size=5)),
    )
    top_logprobs = draw(st.sampled_from([None, 0, 1, 5, 20]))
    prompt, generated = draw(st.lists(tokens, max_size=20)), draw(st.lists(tokens, max_size=20))
    return logits, wish, top_logprobs, prompt, generated


@given(cases())
@settings(max_examples=200, deadline=None)
def test_any_combination_keeps_what_transformers_keeps(
    case: Case,
) -> None:
    logits, wish, top_logprobs, prompt, generated = case
    scores = processed(logits, wish, prompt, generated)
    states = []
    for seed in range(40):
        counts = None
        if wish.repetition_penalty != 1.0 or wish.presence_penalty or wish.frequency_penalty:
            counts = TokenCounts(prompt if wish.repetition_penalty != 1.0 else [])
            for token in generated:
                counts.add(token)
        states.append(SamplingState(wish, seed, top_logprobs, counts))
    changed = logits.repeat(len(states), 1)
    tokens = sample(changed, states)
    if wish.temperature == 0:
        assert {scores[0, token].item() for token in tokens} == {scores.max().item()}
    else:
        assert set(tokens) <= support(scores, wish, min(1.0, wish.top_p + EDGE))
        if wish.min_p < 1 and len(kept := support(scores, wish, max(1e-9, wish.top_p - EDGE))) == 1:
            assert kept <= set(tokens)
    raw = logits.log_softmax(dim=-1)[0]
    for token, each in zip(tokens, states, strict=True):
        if top_logprobs is None:
            assert each.logprobs is None
            continue
        assert each.logprobs is not None
        value, ids, values = each.logprobs
        assert value == pytest.approx(raw[token].item(), abs=1e-5)
        best = raw.topk(min(top_logprobs, len(raw))).values.tolist()
        assert values == pytest.approx(best, abs=1e-5)
        assert [raw[id].item() for id in ids] == pytest.approx(best, abs=1e-5)


FLAT = [
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.7, "temperature": 2.0},
    {"top_p": 0.8, "min_p": 0.2},
    {"top_k": 700},
    {"top_k": 700, "top_p": 0.9},
    {"min_p": 0.15},
    {"temperature": 1.4, "top_k": 900, "top_p": 0.85, "min_p": 0.15},
]


@pytest.mark.parametrize("wish", FLAT, ids=str)
def test_flat_distributions_are_sampled_exactly(wish: dict[str, Any]) -> None:
    # The nucleus is larger than the few likeliest tokens in which it is looked for first.
    logits = torch.randn(1200, generator=torch.Generator().manual_seed(5)) * 0.4
    probabilities = expected(logits, wish)
    assert (probabilities > 0).sum() > 256
    counts = torch.zeros(1200, dtype=torch.long)
    for first in range(0, 30_000, 500):
        states = [state(seed=first + seed, **wish) for seed in range(500)]
        counts += torch.bincount(torch.tensor(sample(logits.repeat(500, 1), states)), minlength=1200)
    # At the edge of the nucleus a token more or less may be in it: its chance is below a thousandth.
    assert counts[probabilities == 0].sum() <= 30_000 * 0.001
    counts[probabilities == 0] = 0
    assert chi_square(counts, probabilities) < 5


def test_nothing_sorts_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    widest = 0

    def watched(sort: Any) -> Any:
        def watch(values: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            nonlocal widest
            widest = max(widest, values.shape[-1])
            return sort(values, *arguments, **options)

        return watch

    for name in ("sort", "argsort", "msort"):
        for owner in (torch, torch.Tensor):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    logits = torch.randn(len(SETTINGS) + 1, 5000)
    states = [state(seed=1, top_logprobs=5, **wish) for wish in [*SETTINGS, {"temperature": 0.0}]]
    assert len(sample(logits, states)) == len(states)
    # The tokens that may be sampled are put in order; the largest top-k of these settings is less.
    assert 0 < widest <= 1000


def test_a_million_tokens_of_mixed_settings_are_all_allowed() -> None:
    assert sample_many(1_000_000, batch=4000) == 1_000_000
