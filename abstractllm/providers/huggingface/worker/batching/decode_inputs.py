"""The inputs of decode steps whose attention reads the pages of the cache where they are.

transformers lists the place of every cached token of every request in Python, and pads the inputs of every step where
CUDA graphs are used. Here the inputs of a decode step are one small table of numbers and one table of pages, which are
written by NumPy and copied from pinned memory; those of other steps are not padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.generation.continuous_batching.requests import TMP_TOKEN_ID
from transformers.generation.continuous_batching.utils import stream_context

__all__ = ["DecodeInputs"]

_ROWS = ("input_ids", "position_ids", "cumulative_seqlens_q", "logits_indices", "cumulative_seqlens_k")


class DecodeInputs:
    """Takes the place of a batch processor's preparation of its inputs.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet, whose model has full attention in every layer.
    """

    def __init__(self, processor: Any) -> None:
        self._runner, self._batch = processor.model_runner, processor.inputs_and_outputs
        (self._allocator,) = processor.cache.cache_allocators.values()
        self._pages_of_block = self._allocator.block_physical_stride // self._allocator.tokens_per_page
        requests, is_pinned = processor.cb_config.max_requests_per_batch, processor.model_device.type == "cuda"
        self._numbers = torch.zeros((len(_ROWS), requests + 1), dtype=torch.int32, pin_memory=is_pinned)
        self._table = torch.zeros(self._batch.block_table.shape[1:], dtype=torch.int32, pin_memory=is_pinned)
        batch = self._batch
        self._targets = [
            batch.cumulative_seqlens_k[self._allocator.layer_type] if name == _ROWS[-1] else getattr(batch, name)
            for name in _ROWS
        ]
        self._pad_inputs = self._runner.maybe_pad_inputs
        self._prepare_other, self._other_kwargs = batch.prepare_batch_tensors, batch.get_model_kwargs
        self._runner.maybe_pad_inputs = self._pad_decode_inputs
        batch.prepare_batch_tensors, batch.get_model_kwargs = self._prepare, self._model_kwargs

    def _pad_decode_inputs(self, num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool) -> tuple[int, int]:
        """Returns the numbers of new and of cached tokens to prepare for: those of a captured graph, if any."""
        if not use_decode_fast_path:
            return num_q_tokens, max_kv_read
        padded: tuple[int, int] = self._pad_inputs(num_q_tokens, max_kv_read, use_decode_fast_path)
        return padded

    def _prepare(
        self,
        requests_in_batch: Sequence[Any],
        logits_processors: Any,
        use_decode_fast_path: bool,
        num_q_tokens: int,
        max_kv_read: int,
        use_padding: bool,
    ) -> None:
        """Writes the inputs of a step, on the stream that will read them."""
        with stream_context(self._batch.compute_stream):
            if use_decode_fast_path:
                self._prepare_decode(requests_in_batch, num_q_tokens)
            else:
                self._prepare_other(requests_in_batch, logits_processors, False, num_q_tokens, max_kv_read, False)

    def _model_kwargs(self, use_padding: bool = False) -> Any:
        return self._other_kwargs(use_padding=use_padding and self._batch.use_block_table)

    def _prepare_decode(self, requests: Sequence[Any], size: int) -> None:
        """Writes the inputs of a decode step.

        Args:
            requests: One state for each request, with one token each.
            size: The number of sequences that the forward pass takes; those after the requests have no tokens.
        """
        batch, count = self._batch, len(requests)
        states = [request.state for request in requests]
        numbers, table = self._numbers.numpy(), self._table.numpy()
        tokens, positions, query_starts, logits_indices, key_starts = numbers
        tokens[:count] = [state.tokens_to_process[0] for state in states]
        positions[:count] = [state.position_offset for state in states]
        tokens[count:size] = positions[count:size] = logits_indices[count:size] = 0
        query_starts[: count + 1] = range(count + 1)
        logits_indices[:count] = range(count)
        query_starts[count + 1 : size + 1] = count
        (positions[:count] + 1).cumsum(dtype=numbers.dtype, out=key_starts[1 : count + 1])
        key_starts[count + 1 : size + 1] = key_starts[count]
        for row, state in zip(table, states, strict=False):
            blocks = self._allocator.block_table[state.request_id]
            row[: len(blocks)] = blocks
        table[:count] *= self._pages_of_block
        for values, target in zip(self._numbers, self._targets, strict=True):
            target[: size + 1].copy_(values[: min(size + 1, len(target))], non_blocking=True)
        batch.block_table[0, :size].copy_(self._table[:size], non_blocking=True)
        for state in states:
            state.position_offset += 1
            state.tokens_to_process = [TMP_TOKEN_ID]
        self._describe(requests, size)

    def _describe(self, requests: Sequence[Any], size: int) -> None:
        """Tells transformers about the step, as its own preparation does."""
        batch, groups = self._batch, range(1)
        batch.use_block_table, batch.num_q_tokens, batch.max_kv_read = True, size, 0
        batch.num_request_in_batch, batch.requests_in_batch = len(requests), list(requests)
        batch.req_id_to_new_token_position = {}
        batch.true_read_sizes, batch.true_write_sizes = [0 for _ in groups], [0 for _ in groups]
        batch.total_seqlen_q, batch.max_length_q = len(requests), 1
        for layer_type in batch.cumulative_seqlens_k:
            batch.max_length_k[layer_type] = 1
