"""The tokens that a step takes: the first of many short prompts do not wait for the last ones to be read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from abstractllm.providers.huggingface.protocol.messages import Conversation, Generate, Sampling, Turn
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.prefill_budget import SHORT_PROMPT_TOKENS, step_tokens
from abstractllm.providers.huggingface.worker.loading import load_model
from abstractllm.providers.huggingface.worker.request import EngineRequest
from tests.unit.test_batching import Harness, settings
from tests.unit.tiny_models import build


def test_short_prompts_fill_half_a_step_beside_the_answers() -> None:
    assert step_tokens(512, 0, [16] * 64) == 256
    assert step_tokens(512, 40, [16] * 64) == 296
    assert step_tokens(512, 300, [16] * 64) == 512
    assert step_tokens(512, 40, []) == 296


def test_a_step_that_would_read_of_a_long_prompt_is_not_cut() -> None:
    assert step_tokens(512, 8, [1024]) == 512
    assert step_tokens(512, 8, [30, 1024]) == 512
    assert step_tokens(512, 8, [SHORT_PROMPT_TOKENS] * 3) == 264
    # One that is behind what the step may take does not count.
    assert step_tokens(512, 0, [*[16] * 32, 1024]) == 256


@pytest.fixture
def harness(tmp_path, monkeypatch) -> Iterator[Harness]:
    """A batch loop that does not run yet."""
    monkeypatch.setattr(BatchEngine, "start", lambda self: None)
    harness = Harness(
        load_model(
            settings(build(tmp_path / "llama", "llama", max_position_embeddings=2048)),
            lambda phase, fraction=None: None,
        ),
        64,
    )
    yield harness
    harness.engine.stop()


def submit(harness: Harness, number: int, tokens: int) -> None:
    prompt = tuple((number * 7 + place) % 50 + 1 for place in range(tokens))
    message = Generate(number, Conversation((Turn("user", "words"),)), Sampling(max_tokens=4))
    harness.engine.submit(EngineRequest(message, prompt=prompt, max_tokens=4))


def test_the_first_of_many_prompts_get_their_tokens_before_the_last_are_read(harness, monkeypatch) -> None:
    begun: list[int] = []
    after_step = harness.engine._send

    def count(batch) -> None:
        after_step(batch)
        begun.append(len(harness.begun))

    harness.engine._send = count
    for number in range(1, 49):
        submit(harness, number, 16)
    harness.engine._manager.start()
    harness.wait_until(lambda: len(harness.done) == 48)
    assert begun[:3] == [16, 32, 48]


def test_a_long_prompt_is_read_in_as_few_steps_as_it_may_be(harness) -> None:
    submit(harness, 1, 1000)
    harness.engine._manager.start()
    harness.wait_until(lambda: 1 in harness.done)
    assert harness.engine.counters.steps == math.ceil(1000 / 512) + 3
