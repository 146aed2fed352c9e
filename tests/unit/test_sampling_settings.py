"""The sampling settings of a request: what it leaves unset comes from the model, then from neutral values."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig

from abstractllm.providers.huggingface.protocol.messages import Sampling
from abstractllm.providers.huggingface.worker.sampling_settings import SamplingSettings, fill_in

SAMPLED = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


def defaults(**values: Any) -> GenerationConfig:
    """Returns a model's generation configuration with nothing but these values."""
    return GenerationConfig(**values)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("request_", "model", "expected"),
    [
        ({}, {}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {}, {"temperature": 0.7}),
        ({"temperature": 1e-9}, {}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {}, {"temperature": 1.0, "top_p": 0.5}),
        ({"top_k": 3}, {}, {"temperature": 1.0, "top_k": 3}),
        ({"min_p": 0.1}, {}, {"temperature": 1.0, "min_p": 0.1}),
        ({}, SAMPLED, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        ({"temperature": 0.0}, SAMPLED, {"temperature": 0.0, "top_k": 20, "top_p": 0.95}),
        ({"top_k": 0, "top_p": 1.0}, SAMPLED, {"temperature": 0.6}),
        ({}, {"repetition_penalty": 1.2}, {"temperature": 0.0, "repetition_penalty": 1.2}),
        ({"repetition_penalty": 1.0}, {"repetition_penalty": 1.2}, {"temperature": 0.0}),
        (
            {"presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {7: 2.0}},
            {},
            {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {7: 2.0}},
        ),
    ],
    ids=str,
)
def test_gaps_are_filled_in(request_: dict[str, Any], model: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fill_in(Sampling(**request_), defaults(**model)) == SamplingSettings(**expected)


@pytest.mark.parametrize("name", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_any_penalty_is_noticed(name: str) -> None:
    assert SamplingSettings(**{name: 0.5}).has_penalties
    assert not SamplingSettings(temperature=0.5, top_k=3, logit_bias={1: 1.0}).has_penalties
