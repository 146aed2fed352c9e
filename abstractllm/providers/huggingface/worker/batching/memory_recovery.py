"""Going on after a step for which there was too little memory."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from transformers.generation.continuous_batching.requests import RequestStatus

from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest

__all__ = ["recover_memory"]


def recover_memory(processor: Any, error: Exception) -> None:
    """Takes the failed step back and makes the next one smaller.

    The largest request of the step gives way to the others: it loses its place in the cache, and goes on from where it
    was once one of them is over. If there is no other, it fails.

    Args:
        processor: The `ContinuousBatchProcessor`.
        error: The error of the step.
    """
    traceback.print_exception(error)
    traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    batch, scheduler, cache = processor.inputs_and_outputs, processor.scheduler, processor.cache
    if not batch.requests_in_batch:
        raise error
    # Some may have ended with the tokens of the step before, which came after this step had begun.
    futures = [future for future in batch.requests_in_batch if future.state.status != RequestStatus.FINISHED]
    batch.requests_in_batch, batch.num_request_in_batch = [], 0
    if not futures:
        return
    largest = max((future.state for future in futures), key=lambda state: state.position_offset)
    for future in futures:
        _take_back(future, cache)
    scheduler.finish_request(largest.request_id)
    if scheduler.active_requests:
        scheduler.add_waiting_request(largest.create_equivalent_initial_request())
        scheduler.block_new_requests = True
    else:
        scheduler.block_new_requests = False
        largest.output.fail(error)
    largest.status = RequestStatus.FINISHED


def _take_back(future: Any, cache: Any) -> None:
    """Puts a request back to where it was before the step; what the step has written to the cache is written again.

    Args:
        future: The request, as it was scheduled for the step.
        cache: The cache of keys and values.
    """
    state: BatchRequest = future.state
    state.position_offset -= future.query_length
    if future.has_new_token and future.query_length == 1:
        state.tokens_to_process = [(state.generated_tokens or state.initial_tokens)[-1]]
        return
    if any(allocator.layer_type == "sliding_attention" for allocator in cache.cache_allocators.values()):
        # The step may have written over keys of the window that it needs itself.
        cache.free_blocks(state.request_id)
        state.position_offset = 0
    state.tokens_to_process = []
    state.remaining_prefill_tokens = state.initial_tokens[state.position_offset :]
    state.status = RequestStatus.PREFILLING
