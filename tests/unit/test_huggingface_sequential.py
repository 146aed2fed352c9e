"""Answers through `model.generate`, one at a time: the tokens that transformers samples from the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.tiny_models import build


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from abstractllm.providers.huggingface import HuggingFaceConfig
    from abstractllm.providers.huggingface.worker.loading import load_model

    directory: Path = build(tmp_path_factory.mktemp("llama"), "llama")
    settings = HuggingFaceConfig.parse({"model": str(directory), "threads": 1}).load_settings()
    return load_model(settings, lambda phase, fraction=None: None)


def answer(loaded: Any, max_tokens: int = 30, cancel_after: int | None = None, **sampling: Any) -> tuple[Any, Any]:
    """The answer to "hello": the text's pieces, and the last message."""
    from abstractllm.providers.huggingface.protocol.messages import Conversation, Delta, Generate, Sampling, Turn
    from abstractllm.providers.huggingface.worker.request import EngineRequest
    from abstractllm.providers.huggingface.worker.sequential import generate

    message = Generate(1, Conversation((Turn("user", "hello"),)), Sampling(**sampling))
    request = EngineRequest(message, prompt=loaded.prompt_builder.encode(message.conversation), max_tokens=max_tokens)
    pieces: list[str] = []

    def take(delta: object) -> None:
        if isinstance(delta, Delta):
            pieces.append(delta.text)
            request.cancelled = len(pieces) == cancel_after

    return pieces, generate(loaded, request, take)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"temperature": 0.0}, {"do_sample": False}),
        ({}, {"do_sample": False}),
        ({"temperature": 0.7}, {"temperature": 0.7, "top_k": 0}),
        ({"temperature": 0.7, "top_k": 5}, {"temperature": 0.7, "top_k": 5}),
        ({"top_p": 0.3}, {"top_p": 0.3, "top_k": 0}),
        ({"temperature": 1.3, "min_p": 0.2}, {"temperature": 1.3, "min_p": 0.2, "top_k": 0}),
        ({"temperature": 0.9, "repetition_penalty": 1.7}, {"temperature": 0.9, "repetition_penalty": 1.7, "top_k": 0}),
    ],
)
def test_parameters_mean_what_they_mean_to_transformers(
    loaded: Any, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    import torch

    from abstractllm.providers.huggingface.protocol.messages import Conversation, Turn

    prompt = torch.tensor([loaded.prompt_builder.encode(Conversation((Turn("user", "hello"),)))])
    torch.manual_seed(3)
    options = {"do_sample": True, "max_new_tokens": 30, "attention_mask": torch.ones_like(prompt), **theirs}
    expected = loaded.model.generate(prompt, **options)[0, prompt.shape[1] :].tolist()
    pieces, done = answer(loaded, seed=3, **ours)
    assert "".join(pieces) == loaded.token_decoder.decode(expected)
    assert done.output_tokens == len(expected)


def test_models_own_defaults_hold_where_the_request_is_silent(loaded: Any) -> None:
    defaults = loaded.model.generation_config
    defaults.update(do_sample=True, temperature=0.8, top_k=7)
    try:
        silent = answer(loaded, seed=5)[0]
    finally:
        defaults.update(do_sample=False, temperature=None, top_k=None)
    assert silent == answer(loaded, seed=5, temperature=0.8, top_k=7)[0]
    assert silent != answer(loaded, seed=5)[0]


def test_cancelled_answer_ends_with_the_next_token(loaded: Any) -> None:
    pieces, done = answer(loaded, max_tokens=100, cancel_after=3, logit_bias={1: -100.0, 3: -100.0})
    assert len(pieces) == 3
    assert done.finish_reason == "cancelled"
    assert done.output_tokens < 15


def test_penalties_and_stops_do_what_they_do_in_a_batch(loaded: Any) -> None:
    bias = {1: -100.0, 3: -100.0}
    plain = "".join(answer(loaded, logit_bias=bias)[0])
    for penalty in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        assert "".join(answer(loaded, logit_bias=bias, **{penalty: 1.9})[0]) != plain
    stop = plain[6:9]
    pieces, done = answer(loaded, logit_bias=bias, stop=(stop,))
    assert "".join(pieces) == plain[: plain.index(stop)]
    assert (done.finish_reason, done.stop_sequence) == ("stop_sequence", stop)


def test_each_layer_of_each_forward_pass_is_told(loaded: Any) -> None:
    from abstractllm.providers.huggingface.worker.sequential import before_each_layer

    told: list[None] = []
    handles = before_each_layer(loaded, lambda: told.append(None))
    try:
        _, done = answer(loaded, max_tokens=7, temperature=0.0)
    finally:
        for handle in handles:
            handle.remove()
    assert len(told) == done.output_tokens * loaded.model.config.num_hidden_layers
