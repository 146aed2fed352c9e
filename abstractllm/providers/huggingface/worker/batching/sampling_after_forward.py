"""Sampling each step's tokens after the forward pass, in the place of the model runner's own sampling."""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation.continuous_batching.utils import stream_context

from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest

__all__ = ["sample_after_forward"]


def sample_after_forward(processor: Any, vocabulary_size: int) -> None:
    """Puts our sampler into a batch processor.

    The runner's own sampling, argmax or multinomial, is the same for all requests. Ours is Python code, which a CUDA
    graph cannot capture. So it runs after the forward pass, which may be captured, on logits that are kept from there.
    The tokens are read from the device once, and not copied back.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet.
        vocabulary_size: The number of logits at each position.
    """
    runner, batch = processor.model_runner, processor.inputs_and_outputs
    compute_batch, wait_for_device = runner.compute_batch, batch.retrieve_device_outputs
    is_captured = runner.use_cuda_graph_varlen or runner.use_cuda_graph_decode
    # Each graph writes to the same place, whichever is replayed.
    rows = processor.cb_config.max_requests_per_batch if is_captured else 0
    captured_logits = torch.empty((rows, vocabulary_size), device=processor.model_device)
    kept_logits: list[torch.Tensor] = []
    sampler = BatchSampler()
    tokens: list[int] = []

    def keep_logits(scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        if is_captured:
            captured_logits[: scores.shape[1]].copy_(scores[0])
        else:
            kept_logits.append(scores[0])

    def compute_batch_and_sample(model: Any, batch_data: Any) -> None:
        kept_logits.clear()  # those of a step that has failed
        tokens.clear()
        compute_batch(model, batch_data)
        logits = captured_logits if is_captured else kept_logits.pop()
        # The requests of a warm-up are transformers' own, and nobody waits for their tokens.
        requests = [
            future.state
            for future in batch.requests_in_batch
            if future.has_new_token and isinstance(future.state, BatchRequest)
        ]
        if requests:
            states = [request.output.sampling_state for request in requests]
            with stream_context(batch.compute_stream):
                tokens.extend(sampler.sample(logits[: len(states)], states).take())

    def retrieve_device_outputs() -> None:
        if not tokens:  # which have been waited for
            wait_for_device()

    runner._sample = keep_logits
    runner.compute_batch = compute_batch_and_sample
    batch.retrieve_device_outputs = retrieve_device_outputs
    batch.prepare_batch_update = lambda: (batch.requests_in_batch, tokens, None)
