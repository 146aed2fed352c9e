"""Attention that reads the pages of the cache in place: the kernel, in Triton's interpreter, and the steps with it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import attention, start
from abstractllm.providers.huggingface.worker.batching.step_inputs import StepInputs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.kernel_stand_ins import stand_in_for_kernels
from tests.unit.test_architectures import answered_together


def test_each_new_token_attends_to_its_sequence_and_is_put_into_the_cache(repository: Path) -> None:
    pytest.importorskip("triton")
    # The interpreter has to be chosen before Triton is imported.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.decode_case"]
    subprocess.run(command, env=environment, cwd=repository, check=True, timeout=100)


class Steps:
    """Counts the steps in which each request has one new token, those that read prompts, and those that do both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decode = self.prompts = self.mixed = 0
        prepare = StepInputs._prepare

        def counting(inputs: StepInputs, requests_in_batch: Any, *arguments: Any, **options: Any) -> None:
            prepare(inputs, requests_in_batch, *arguments, **options)
            lengths = [request.query_length for request in requests_in_batch]
            self.decode += max(lengths) == 1
            self.prompts += min(lengths) > 1
            self.mixed += min(lengths) == 1 < max(lengths)

        monkeypatch.setattr(StepInputs, "_prepare", counting)


PROMPTS = [list(range(2, 2 + length)) for length in (1, 9, 40, 100, 15, 17, 31)]


def answers_by(name: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens of all prompts, four at once, with an attention."""
    monkeypatch.setattr(start, "candidates", lambda *_: [name])
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=8 << 20, max_batch_size=4)
    return answered_together(LoadedModel(model, tokenizer(), load), load, PROMPTS)


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Mistral", "Gemma 2", "Gemma 3", "GPT-OSS"])
def test_answers_with_kernels_are_those_of_pytorchs_own_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_for_kernels(monkeypatch)
    model = model_of(next(each for each in ARCHITECTURES if each.name == name))
    steps = Steps(monkeypatch)
    answers = answers_by(attention.IN_PLACE_ATTENTION, model, monkeypatch)
    assert steps.decode
    assert steps.prompts
    assert steps.mixed
    assert answers == answers_by(attention.PAGED_ATTENTION, model, monkeypatch)
    assert math.prod(map(len, answers))
