"""The ends of an answer, in a batch and one at a time: any of several end tokens, or the context window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from abstractllm import create_llm
from abstractllm.enums import FinishReason
from abstractllm.interface import AbstractLLMInterface
from tests.cases.local.in_process_engine import engines_in_process
from tests.unit.tiny_models import WINDOW, build

ENDS = (1, 3)
"""`</s>`, and `<|im_end|>`, which the generation configuration names beside it."""


@pytest.fixture(scope="module", params=[8, 1], ids=["in a batch", "one at a time"])
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbstractLLMInterface]:
    directory: Path = build(tmp_path_factory.mktemp("llama"), "llama")
    config = {"model": str(directory), "temperature": 0, "max_batch_size": request.param}
    with engines_in_process(), create_llm("huggingface", **config) as local_llm:
        yield local_llm


@pytest.mark.parametrize("end", ENDS)
def test_every_end_token_ends_the_answer(llm: AbstractLLMInterface, end: int) -> None:
    answer = llm.complete("hello", max_tokens=20, logit_bias={end: 100.0})
    assert (answer.text, answer.finish_reason, answer.usage.output_tokens) == ("", FinishReason.STOP, 1)


def test_without_max_tokens_an_answer_may_fill_the_window(llm: AbstractLLMInterface) -> None:
    answer = llm.complete("hello", logit_bias=dict.fromkeys(ENDS, -100.0))
    assert answer.finish_reason is FinishReason.MAX_TOKENS
    assert answer.usage.input_tokens is not None and answer.usage.output_tokens is not None
    assert answer.usage.input_tokens + answer.usage.output_tokens == WINDOW
