"""The preparation of steps: nothing is done for each cached token, and few operations whatever a batch holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.generation.continuous_batching.cache_allocators.full_attention import FullAttentionCacheAllocator
from transformers.generation.continuous_batching.cache_allocators.sliding_attention import (
    SlidingAttentionCacheAllocator,
)
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus

from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.providers.huggingface.worker.batching.engine import BatchEngine
from abstractllm.providers.huggingface.worker.batching.start import start
from abstractllm.providers.huggingface.worker.model import LoadedModel
from tests.unit.architectures import ARCHITECTURES, WINDOW, model_of, tokenizer
from tests.unit.test_architectures import Followers, new_request


def loaded(name: str, **changes: Any) -> LoadedModel:
    architecture = next(each for each in ARCHITECTURES if each.name == name)
    load = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=64 << 20, max_batch_size=64)
    return LoadedModel(model_of(architecture, **changes), tokenizer(), load)


@pytest.mark.parametrize("name", ["Llama", "Gemma 3"])
def test_no_step_lists_the_places_of_tokens_in_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for allocator in (FullAttentionCacheAllocator, SlidingAttentionCacheAllocator):
        for method in ("get_read_indices", "get_write_indices", "fill_block_table", "update"):
            monkeypatch.setattr(allocator, method, lambda *arguments: pytest.fail("transformers' own preparation"))
    model, followers = loaded(name), Followers()
    settings = Load(model="", is_directory=True, cache_dir="", kv_cache_bytes=4 << 20, max_batch_size=3)
    engine = start(model, settings, send=followers.take_all, end=followers.end, crash=followers.crash)
    assert engine is not None, model.description.note
    for index, length in enumerate((40, 1, 70, 3)):
        engine.submit(new_request(index, list(range(2, 2 + length))))
    followers.wait(4)
    engine.stop()
    assert engine.failure is None


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


def prepared_operations(name: str, requests: int, context: int, prompts: int) -> int:
    """The operations that the preparation of a step takes."""
    engine = BatchEngine(
        loaded(name),
        max_batch_size=64,
        cache_bytes=64 << 20,
        prefix_sharing=True,
        send=lambda batch: None,
        end=lambda request: None,
        crash=lambda: None,
    )
    engine._manager.warmup()
    processor = engine._manager.processor
    futures = []
    for index in range(requests):
        length = 1 if index >= prompts else 5
        state = RequestState(request_id=str(index), initial_tokens=[0] * context)
        state._status, state.position_offset = RequestStatus.DECODING, context
        state.tokens_to_process = [3] * length
        assert processor.cache.can_store_request_tokens(state, length)
        futures.append(FutureRequestState(state, True, {}, length))
    tokens = sum(future.query_length for future in futures)
    with Operations() as operations, torch.no_grad():
        processor.inputs_and_outputs.prepare_batch_tensors(futures, None, prompts == 0, tokens, 0, False)
    return operations.count


@pytest.mark.parametrize("name", ["Llama", "Gemma 3"])
def test_the_operations_of_a_preparation_do_not_grow_with_the_batch(name: str) -> None:
    assert WINDOW == 256
    few = prepared_operations(name, requests=2, context=20, prompts=0)
    assert few <= (50 if name == "Llama" else 80)
    assert prepared_operations(name, requests=64, context=20, prompts=0) == few
    # As many more as there are padded calls.
    assert prepared_operations(name, requests=64, context=200, prompts=0) <= few + 60
    mixed = prepared_operations(name, requests=4, context=20, prompts=2)
    assert prepared_operations(name, requests=64, context=20, prompts=20) == mixed


def test_blocks_that_are_replaced_or_added_are_read_anew() -> None:
    engine = BatchEngine(
        loaded("Llama"),
        max_batch_size=4,
        cache_bytes=4 << 20,
        prefix_sharing=True,
        send=lambda batch: None,
        end=lambda request: None,
        crash=lambda: None,
    )
    engine._manager.warmup()
    processor = engine._manager.processor
    cache, (group,) = processor.cache, processor.inputs_and_outputs.prepare_batch_tensors.__self__._groups
    allocator = cache.cache_allocators["full_attention"]
    states = [RequestState(request_id=name, initial_tokens=list(range(2, 34))) for name in "ab"]

    def table_of(state: RequestState) -> list[int]:
        future = FutureRequestState(state, False, {}, 16)
        state.tokens_to_process = state.initial_tokens[state.position_offset :][:16] or [5] * 16
        assert cache.can_store_request_tokens(state, 16)
        processor.inputs_and_outputs.prepare_batch_tensors([future], None, False, 16, 0, False)
        count = len(allocator.block_table[state.request_id])
        return [page // group._pages_of_block for page in group._tables[0][0, :count].tolist()]

    for state in states:
        assert table_of(state) == allocator.block_table[state.request_id]
        cache.mark_complete_blocks(state, {"full_attention": 1})
    shared = allocator.block_table["a"][0]
    assert allocator.block_table["b"] == [shared]  # in the place of its own, of the same content
    assert table_of(states[1]) == allocator.block_table["b"]
    assert allocator.block_table["b"][0] == shared
    cache.free_blocks("b")
    states[1].position_offset = 0
    assert table_of(states[1]) == allocator.block_table["b"] != [shared]
