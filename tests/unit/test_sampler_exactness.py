"""The sampler under any combination of parameters: against transformers' processors, in distribution, and in bulk."""

from __future__ import annotations

import dataclasses
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

from abstractllm.providers.huggingface.worker.batching.sampler import draw
from abstractllm.providers.huggingface.worker.batching.sampling_state import Counts, SamplingState
from benchmarks.sampled_tokens import draw_many
from tests.unit.test_sampler import NEUTRAL, SETTINGS, chi_square, expected, row

EDGE = 1e-4
"""How far a cumulative probability may be off: where it meets `top_p`, rounding decides about a token."""


def processed(logits: torch.Tensor, wish: SamplingState, prompt: list[int], generated: list[int]) -> torch.Tensor:
    """The logits after bias and penalties: the repetition penalty is transformers', the others as in OpenAI's API."""
    scores = logits.clone()
    for token, value in wish.bias.items():
        scores[0, token] += value
    if wish.repetition != 1.0 and prompt + generated:
        scores = RepetitionPenaltyLogitsProcessor(wish.repetition)(torch.tensor([prompt + generated]), scores)
    for token in set(generated):
        scores[0, token] -= wish.presence + wish.frequency * generated.count(token)
    return scores


def support(scores: torch.Tensor, wish: SamplingState, top_p: float) -> set[int]:
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


@st.composite
def cases(draw_value: Any) -> tuple[torch.Tensor, SamplingState, list[int], list[int]]:
    size = draw_value(st.integers(2, 700))
    tokens = st.integers(0, size - 1)
    generator = torch.Generator().manual_seed(draw_value(st.integers(0, 2**32)))
    logits = torch.randn(1, size, generator=generator) * draw_value(st.sampled_from([0.01, 0.5, 2.0, 8.0]))
    wish = dataclasses.replace(
        NEUTRAL,
        temperature=draw_value(st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.7])),
        top_k=draw_value(st.one_of(st.just(0), st.integers(1, size + 5))),
        top_p=draw_value(st.one_of(st.just(1.0), st.floats(0.01, 0.99))),
        min_p=draw_value(st.one_of(st.just(0.0), st.floats(0.01, 1.0))),
        repetition=draw_value(st.sampled_from([1.0, 0.7, 1.3, 2.0])),
        presence=draw_value(st.sampled_from([0.0, -1.5, 0.5, 2.0])),
        frequency=draw_value(st.sampled_from([0.0, -0.5, 0.3, 2.0])),
        bias=draw_value(st.dictionaries(tokens, st.floats(-100, 100), max_size=5)),
        logprobs=draw_value(st.sampled_from([None, 0, 1, 5, 20])),
    )
    prompt, generated = draw_value(st.lists(tokens, max_size=20)), draw_value(st.lists(tokens, max_size=20))
    return logits, wish, prompt, generated


@given(cases())
@settings(max_examples=200, deadline=None)
def test_any_combination_keeps_what_transformers_keeps(
    case: tuple[torch.Tensor, SamplingState, list[int], list[int]],
) -> None:
    logits, wish, prompt, generated = case
    scores = processed(logits, wish, prompt, generated)
    rows = []
    for seed in range(40):
        counts = None
        if wish.repetition != 1.0 or wish.presence or wish.frequency:
            counts = Counts(prompt if wish.repetition != 1.0 else [])
            for token in generated:
                counts.add(token)
        rows.append(dataclasses.replace(wish, seed=seed, counts=counts))
    changed = logits.repeat(len(rows), 1)
    drawn = draw(changed, rows)
    if wish.temperature == 0:
        assert {scores[0, token].item() for token in drawn} == {scores.max().item()}
    else:
        assert set(drawn) <= support(scores, wish, min(1.0, wish.top_p + EDGE))
        if wish.min_p < 1 and len(kept := support(scores, wish, max(1e-9, wish.top_p - EDGE))) == 1:
            assert kept <= set(drawn)
    raw = logits.log_softmax(dim=-1)[0]
    for token, each in zip(drawn, rows, strict=True):
        if wish.logprobs is None:
            assert each.report is None
            continue
        assert each.report is not None
        value, ids, values = each.report
        assert value == pytest.approx(raw[token].item(), abs=1e-5)
        best = raw.topk(min(wish.logprobs, len(raw))).values.tolist()
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
def test_flat_distributions_are_drawn_exactly(wish: dict[str, Any]) -> None:
    # The nucleus is larger than the few likeliest tokens in which it is looked for first.
    logits = torch.randn(1200, generator=torch.Generator().manual_seed(5)) * 0.4
    chances = expected(logits, wish)
    assert (chances > 0).sum() > 256
    counts = torch.zeros(1200, dtype=torch.long)
    for first in range(0, 30_000, 500):
        rows = [row(seed=first + seed, **wish) for seed in range(500)]
        counts += torch.bincount(torch.tensor(draw(logits.repeat(500, 1), rows)), minlength=1200)
    # At the edge of the nucleus a token more or less may be in it: its chance is below a thousandth.
    assert counts[chances == 0].sum() <= 30_000 * 0.001
    counts[chances == 0] = 0
    assert chi_square(counts, chances) < 5


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
    rows = [row(seed=1, logprobs=5, **wish) for wish in [*SETTINGS, {"temperature": 0.0}]]
    assert len(draw(logits, rows)) == len(rows)
    # The ones that may be drawn are put in order; the largest top-k of these settings is less.
    assert 0 < widest <= 1000


def test_a_million_tokens_of_mixed_settings_are_all_allowed() -> None:
    assert draw_many(1_000_000, batch=4000) == 1_000_000
