"""Attention that reads the pages of the cache in place: the kernel, in Triton's interpreter, and the steps with it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching import attention, start
from abstractllm.providers.huggingface.worker.batching.decode_inputs import DecodeInputs
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, model_of, tokenizer
from tests.unit.test_architectures import Followers, new_request

KERNELS = "abstractllm.providers.huggingface.worker.batching.paged_decode"


def test_each_new_token_attends_to_its_sequence_and_is_put_into_the_cache(repository: Path) -> None:
    pytest.importorskip("triton")
    # The interpreter has to be chosen before Triton is imported.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.decode_case"]
    subprocess.run(command, env=environment, cwd=repository, check=True, timeout=100)


def in_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_pages: torch.Tensor,
    value_pages: torch.Tensor,
    block_table: torch.Tensor,
    key_starts: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """The same as the kernel, sequence by sequence."""
    output, page = torch.zeros_like(query), key_pages.shape[1]
    for index, length in enumerate(key_starts.diff().tolist()):
        if not length:  # fills a captured step
            continue
        places = torch.arange(length)
        numbers, offsets = block_table[index, places // page].long(), places % page
        key_pages[numbers[-1], offsets[-1]], value_pages[numbers[-1], offsets[-1]] = key[index], value[index]
        group = query.shape[1] // key.shape[1]
        keys, values = (each[numbers, offsets].repeat_interleave(group, 1) for each in (key_pages, value_pages))
        scores = torch.einsum("hd,nhd->hn", query[index], keys) * options["scaling"]
        output[index] = torch.einsum("hn,nhd->hd", scores.softmax(-1), values)
    return output


class Steps:
    """Counts the steps whose inputs are pages, and those of other steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.in_place = self.other = 0
        prepare = DecodeInputs._prepare

        def counting(inputs: DecodeInputs, requests_in_batch: Any, *arguments: Any, **options: Any) -> None:
            prepare(inputs, requests_in_batch, *arguments, **options)
            self.in_place += inputs._batch.use_block_table
            self.other += not inputs._batch.use_block_table

        monkeypatch.setattr(DecodeInputs, "_prepare", counting)


@pytest.mark.parametrize("name", ["Llama", "Qwen3"])
def test_answers_with_pages_in_place_are_those_of_the_other_attention(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)(KERNELS)
    monkeypatch.setattr(module, "paged_decode", in_torch, raising=False)
    monkeypatch.setitem(sys.modules, KERNELS, module)
    prompts = [list(range(2, 2 + length)) for length in (1, 9, 40, 100, 15, 17, 31)]
    model = model_of(next(each for each in ARCHITECTURES if each.name == name))
    answers = {}
    for attention_name in (attention.PAGED_ATTENTION, attention.IN_PLACE_ATTENTION):
        monkeypatch.setattr(start, "candidates", lambda *_, only=attention_name: [only])
        steps, followers = Steps(monkeypatch), Followers()
        load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=8 << 20, max_batch_size=4)
        loaded = LoadedModel(model, tokenizer(), load)
        engine = start.start(loaded, load, send=followers.take_all, end=followers.end, crash=followers.crash)
        assert engine is not None, loaded.description.note
        try:
            for index, prompt in enumerate(prompts):
                engine.submit(new_request(index, prompt))
            followers.wait(len(prompts))
        finally:
            engine.stop()
        answers[attention_name] = [followers.tokens.get(index, []) for index in range(len(prompts))]
        assert bool(steps.in_place) == (attention_name == attention.IN_PLACE_ATTENTION)
        assert (attention_name == attention.PAGED_ATTENTION) or steps.other  # prompts
    assert answers[attention.IN_PLACE_ATTENTION] == answers[attention.PAGED_ATTENTION]
    assert math.prod(map(len, answers[attention.PAGED_ATTENTION]))


def test_a_model_with_a_sliding_window_does_not_read_in_place() -> None:
    for architecture in ARCHITECTURES:
        if architecture.name in ("Llama", "Gemma 3"):
            is_full = attention._is_attention_full(model_of(architecture))
            assert is_full == (architecture.name == "Llama")
