"""The inputs of a step, written by NumPy, and what its attention reads and writes of the cache.

transformers lists the place of every cached token of every request in Python, copies the keys and values of all of
them for each layer, and knows tables of pages only for models without a sliding window. Here each sequence with one new
token has a row in a table of pages, whose pages are read where they are, and only prompts have lists of tokens. Decode
steps may be captured in CUDA graphs, so their inputs always stand in the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers.generation.continuous_batching.requests import TMP_TOKEN_ID
from transformers.generation.continuous_batching.utils import stream_context

from abstractllm.providers.huggingface.worker.batching.cache_layout import LAYER_STEP, LayerStep
from abstractllm.providers.huggingface.worker.batching.group_inputs import GroupInputs, Sequences
from abstractllm.providers.huggingface.worker.generation_errors import is_out_of_memory

__all__ = ["StepInputs"]

_ROWS = ("input_ids", "position_ids", "cumulative_seqlens_q", "logits_indices")


class StepInputs:
    """Takes the place of a batch processor's preparation of its inputs, and of its cache's reading and writing.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet.
        longest: The most tokens of a request.
        has_kernel: Whether a kernel attends the sequences with one new token, and puts their keys into the cache.
    """

    def __init__(self, processor: Any, longest: int, *, has_kernel: bool) -> None:
        self._batch, cache = processor.inputs_and_outputs, processor.cache
        requests, tokens = processor.cb_config.max_requests_per_batch, cache.max_batch_tokens
        (page,) = {allocator.tokens_per_page for allocator in cache.cache_allocators.values()}
        cache.max_blocks_per_request = -(-longest // page)
        # Every step in which each request has one new token reads tables; transformers refuses it with a window.
        cache.max_decode_fast_path_length = cache.max_blocks_per_request * page
        is_pinned = processor.model_device.type == "cuda"
        shape = (len(_ROWS), max(tokens, requests) + 1)
        # One is written while the copy out of the other may still wait for its turn.
        self._numbers = [torch.zeros(shape, dtype=torch.int32, pin_memory=is_pinned) for _ in range(2)]
        self._targets = [getattr(self._batch, name) for name in _ROWS]
        self._groups = [
            GroupInputs(allocator, requests, longest, processor.model_device, has_kernel=has_kernel)
            for allocator in cache.cache_allocators.values()
        ]
        self._group_of_layer = {layer: group for group in self._groups for layer in group.layers}
        self._failure: Exception | None = None
        """The lack of memory for the inputs that were prepared last."""
        self._batch.prepare_batch_tensors = self._prepare
        self._inputs, self._batch.get_model_kwargs = self._batch.get_model_kwargs, self._checked_inputs
        self._can_store, self._mark_complete_blocks = cache.can_store_request_tokens, cache.mark_complete_blocks
        cache.can_store_request_tokens, cache.mark_complete_blocks = self._find_room, self._replace_blocks
        cache.update = self._hand_over

    def _find_room(self, state: Any, request_len: int, dry_run: bool = False) -> bool:
        """Gives a request pages for its next tokens, if it has none and there are some; tells whether it has them now.

        Most requests that decode have them. transformers asks every allocator about every request all the same.
        """
        length = state.position_offset + request_len
        if all(group.has_room(state.request_id, length) for group in self._groups):
            return True
        return bool(self._can_store(state, request_len, dry_run))

    def _replace_blocks(self, state: Any, complete_blocks: Any) -> None:
        """Shares blocks that are full with other requests of the same beginning, which may replace some of them."""
        self._mark_complete_blocks(state, complete_blocks)
        if complete_blocks:
            for group in self._groups:
                group.forget(state.request_id)

    def _hand_over(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tells the attention of a layer about its pages; it reads and writes them itself."""
        group = self._group_of_layer[layer_idx]
        assert group.step is not None
        kwargs[LAYER_STEP] = LayerStep(group.layers[layer_idx], group.step)
        return key_states, value_states

    def _prepare(
        self,
        requests_in_batch: Sequence[Any],
        logits_processors: Any,
        use_decode_fast_path: bool,
        num_q_tokens: int,
        max_kv_read: int,
        use_padding: bool,
    ) -> None:
        """Writes the inputs of a step, on the stream that will read them.

        Requests with one new token come first, those with the shortest contexts before the others; then new prompts,
        the shortest first, and later pieces of prompts.
        """
        requests = sorted(requests_in_batch, key=_place_in_batch)
        count = len(requests)
        states = [request.state for request in requests]
        lengths = np.fromiter((request.query_length for request in requests), np.int64, count)
        past = np.fromiter((state.position_offset for state in states), np.int64, count)
        sequences = Sequences([state.request_id for state in states], past, lengths)
        size = num_q_tokens if use_decode_fast_path else count
        try:
            with stream_context(self._batch.compute_stream):
                self._write_numbers(requests, sequences, size)
                for group in self._groups:
                    group.prepare(sequences, size if use_decode_fast_path else sequences.decoding)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._failure = error  # the requests are in the step already, which fails as a whole
        for request, state in zip(requests, states, strict=True):
            state.position_offset += request.query_length
            if request.has_new_token:
                state.tokens_to_process = [TMP_TOKEN_ID]
        self._describe(
            requests, sequences, num_q_tokens if use_decode_fast_path else sequences.tokens, use_decode_fast_path
        )

    def _checked_inputs(self, use_padding: bool = False) -> Any:
        """Returns what the model is called with; a step whose inputs had too little memory fails here."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._inputs(use_padding=use_padding)

    def _write_numbers(self, requests: Sequence[Any], sequences: Sequences, size: int) -> None:
        """Writes what the model reads; sequences up to `size` have no tokens."""
        count, tokens = len(requests), sequences.tokens
        self._numbers.reverse()
        numbers = self._numbers[0].numpy()
        ids, positions, starts, logits_indices = numbers
        ids[:tokens] = np.fromiter(
            chain.from_iterable(request.state.tokens_to_process for request in requests), np.int32, tokens
        )
        positions[:tokens] = sequences.positions
        starts[: count + 1] = sequences.starts
        starts[count + 1 : size + 1] = tokens
        has_token = np.fromiter((request.has_new_token for request in requests), np.bool_, count)
        last = (sequences.starts[1:] - 1)[has_token]
        logits_indices[: len(last)] = last
        logits_indices[len(last) : size + 1] = 0
        if size > count:  # which only decode steps are
            ids[count:size] = positions[count:size] = 0
        used = max(tokens, size) + 1
        for values, target in zip(self._numbers[0], self._targets, strict=True):
            target[:used].copy_(values[: min(used, len(target))], non_blocking=True)

    def _describe(self, requests: list[Any], sequences: Sequences, tokens: int, is_decode: bool) -> None:
        """Tells transformers about the step, as its own preparation does."""
        batch = self._batch
        batch.use_block_table, batch.num_q_tokens, batch.max_kv_read = is_decode, tokens, 0
        batch.num_request_in_batch, batch.requests_in_batch = len(requests), requests
        batch.req_id_to_new_token_position = {}
        batch.true_read_sizes, batch.true_write_sizes = [0 for _ in self._groups], [0 for _ in self._groups]
        batch.total_seqlen_q, batch.max_length_q = sequences.tokens, int(sequences.lengths.max())
        for layer_type in batch.cumulative_seqlens_k:
            batch.max_length_k[layer_type] = 1


def _place_in_batch(request: Any) -> tuple[bool, int, int]:
    """Returns what sequences are sorted by: those that are alike are attended in one call."""
    past = request.state.position_offset
    return (False, past, 1) if request.query_length == 1 else (True, past > 0, request.query_length)
