"""Sampling tokens: every parameter against transformers' own processors and against the exact distribution."""

import dataclasses
import math

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from abstractllm.providers.huggingface.worker.batching.distributions import top_values
from abstractllm.providers.huggingface.worker.batching.random_numbers import uniforms
from abstractllm.providers.huggingface.worker.batching.sampler import sample
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState, TokenCounts
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings

SAMPLES = 20_000

SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 300},
    {"top_p": 0.1},
    {"top_p": 0.6},
    {"top_p": 0.999},
    {"min_p": 0.2},
    {"top_k": 300, "top_p": 0.9, "temperature": 1.5},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "temperature": 0.8},
    {"top_p": 0.97, "min_p": 0.02, "temperature": 1.3},
]


SETTING_NAMES = {field.name for field in dataclasses.fields(SamplingSettings)}


def state(seed: int = 0, **options) -> SamplingState:
    """Returns the state of a request with neutral settings, but for those that are among the options."""
    settings = SamplingSettings(**{name: options[name] for name in options.keys() & SETTING_NAMES})
    return SamplingState(settings, seed, **{name: options[name] for name in options.keys() - SETTING_NAMES})


def expected(logits: torch.Tensor, settings: dict) -> torch.Tensor:
    """Returns the exact distribution, by transformers' own processors."""
    scores = logits.unsqueeze(0)
    ids = torch.zeros(1, 1, dtype=torch.long)
    if "temperature" in settings:
        scores = TemperatureLogitsWarper(settings["temperature"])(ids, scores)
    if "top_k" in settings:
        scores = TopKLogitsWarper(settings["top_k"])(ids, scores)
    if "top_p" in settings:
        scores = TopPLogitsWarper(settings["top_p"])(ids, scores)
    if "min_p" in settings:
        scores = MinPLogitsWarper(settings["min_p"])(ids, scores)
    return scores.softmax(dim=-1)[0]


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Returns the distance of counts from the expected ones, in standard deviations; rare tokens are put together."""
    wanted = probabilities.double() * counts.sum()
    common = wanted >= 5
    observed = torch.cat((counts[common].double(), counts[~common].sum(0, keepdim=True).double()))
    expected_counts = torch.cat((wanted[common], wanted[~common].sum(0, keepdim=True)))
    observed, expected_counts = observed[expected_counts > 1e-9], expected_counts[expected_counts > 1e-9]
    freedom = max(1, len(expected_counts) - 1)
    value = ((observed - expected_counts) ** 2 / expected_counts).sum().item()
    return (value - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [100, 1000])
def test_frequencies_follow_the_exact_distribution(settings, size):
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * 2
    probabilities = expected(logits, settings)
    counts = torch.zeros(size, dtype=torch.long)
    states = [state(seed=seed, **settings) for seed in range(500)]
    for _ in range(SAMPLES // len(states)):
        tokens = torch.tensor(sample(logits.repeat(len(states), 1), states))
        counts += torch.bincount(tokens, minlength=size)
    assert counts[probabilities == 0].sum() == 0
    assert chi_square(counts, probabilities) < 5


def test_the_tokens_kept_are_those_that_transformers_keeps():
    generator = torch.Generator().manual_seed(1)
    for settings in SETTINGS:
        for _ in range(5):
            logits = torch.randn(60, generator=generator) * 3
            kept = {
                token for token, probability in enumerate(expected(logits, settings).tolist()) if probability > 1e-3
            }
            tokens = set(sample(logits.repeat(4000, 1), [state(seed=seed, **settings) for seed in range(4000)]))
            assert kept <= tokens
            assert all(expected(logits, settings)[token] > 0 for token in tokens)


@pytest.mark.parametrize("size", [64, 500, 8192, 8197, 20_015])
@pytest.mark.parametrize("count", [1, 2, 40, 256])
def test_the_largest_values_are_found_wherever_they_are(size, count):
    generator = torch.Generator().manual_seed(size)
    values = torch.randn(40, size, generator=generator)
    values[1] = -math.inf
    values[1, size - 1] = 0.0
    values[2] = values[2].round()
    values[3] = torch.arange(size)
    count = min(count, size)
    largest, places = top_values(values, count)
    assert torch.equal(largest, values.topk(count).values)
    assert torch.equal(largest, values.gather(1, places))
    assert all(len(set(line)) == count for line in places.tolist())


def test_the_tiniest_top_p_keeps_the_likeliest_token():
    logits = torch.randn(6, 3000, generator=torch.Generator().manual_seed(3))
    states = [state(seed=seed, top_p=1e-300, **more) for seed in range(3) for more in ({}, {"top_k": 9})]
    assert sample(logits.clone(), states) == logits.argmax(dim=-1).tolist()


def test_greedy_is_the_argmax_whatever_the_neighbours_do():
    logits = torch.randn(32, 500)
    states = [state(temperature=0.0) if index % 2 else state(seed=index, top_k=7, top_p=0.5) for index in range(32)]
    tokens = sample(logits.clone(), states)
    assert tokens[1::2] == logits[1::2].argmax(dim=-1).tolist()


def test_a_token_depends_on_seed_and_position_alone():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(32, 700, generator=generator) * 2
    mixed = [{}, {"top_k": 5}, {"top_p": 0.4}, {"top_p": 0.99}, {"min_p": 0.1}, {"temperature": 0.0}, {"top_k": 400}]
    settings = [mixed[index % len(mixed)] | {"seed": index} for index in range(32)]
    together = [state(**each) for each in settings]
    first = sample(logits.clone(), together)
    second = sample(logits.clone(), together)
    assert first != second
    for index, each in enumerate(settings):
        alone = state(**each)
        assert sample(logits[index : index + 1].clone(), [alone]) == [first[index]]
        assert sample(logits[index : index + 1].clone(), [alone]) == [second[index]]
        assert sample(logits[index : index + 1].clone(), [state(sampled=1, **each)]) == [second[index]]


def test_bias_and_penalties_change_the_logits_as_documented():
    logits = torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.5]])
    penalized = state(
        temperature=0.0,
        repetition_penalty=2.0,
        presence_penalty=0.25,
        frequency_penalty=0.5,
        logit_bias={4: 1.0},
        counts=TokenCounts([0, 3, 3]),
    )
    penalized.record(2)
    penalized.record(2)
    changed = logits.clone()
    sample(changed, [penalized])
    seen = torch.tensor([[0, 3, 3, 2, 2]])
    biased = logits.clone()
    biased[0, 4] += 1.0
    wanted = RepetitionPenaltyLogitsProcessor(2.0)(seen, biased)
    wanted[0, 2] -= 2 * 0.5 + 0.25
    assert torch.allclose(changed, wanted)


def test_counts_grow_beyond_their_first_size():
    counts = TokenCounts([7])
    for token in [*range(1000), *range(500)]:
        counts.add(token)
    generated = dict(zip(counts.tokens.tolist(), counts.generated.tolist(), strict=True))
    assert generated == {token: 2.0 if token < 500 else 1.0 for token in range(1000)}


def test_log_probabilities_are_those_of_the_raw_logits():
    logits = torch.randn(3, 50)
    biased = state(temperature=0.0, top_logprobs=4, logit_bias={3: 100.0})
    states = [biased, state(), state(top_k=3, seed=5, top_logprobs=0)]
    tokens = sample(logits.clone(), states)
    exact = logits.log_softmax(dim=-1)
    value, ids, values = states[0].logprobs
    assert tokens[0] == 3
    assert value == pytest.approx(exact[0, 3].item())
    assert ids == exact[0].topk(4).indices.tolist()
    assert values == pytest.approx(exact[0].topk(4).values.tolist())
    assert states[1].logprobs is None
    assert states[2].logprobs == (pytest.approx(exact[2, tokens[2]].item()), [], [])


def test_extreme_settings_and_logits_never_give_a_masked_token_or_none():
    hostile = torch.full((1, 300), -math.inf)
    hostile[0, 17] = -1e30
    wide = torch.randn(1, 300) * 1e4
    for settings in (*SETTINGS, {"temperature": 1e-6}, {"temperature": 2.0, "top_p": 1e-9}, {"min_p": 1.0}):
        assert sample(hostile.clone(), [state(**settings)]) == [17]
        token = sample(wide.clone(), [state(**settings)])[0]
        assert math.isfinite(wide[0, token])


def test_random_numbers_are_even_and_neighbouring_seeds_independent():
    seeds = [seed for seed in range(200) for _ in range(200)]
    numbers = torch.from_numpy(uniforms(seeds, [*range(200)] * 200)).float().view(200, 200)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers.flatten(), bins=50, min=0, max=1)
    assert chi_square(counts, torch.full((50,), 1 / 50)) < 5
    correlation = torch.corrcoef(torch.stack((numbers[:-1].flatten(), numbers[1:].flatten())))[0, 1]
    assert abs(correlation) < 0.03
