"""Draws each step's tokens once the forward pass is over, in the place of the runner's own sampling."""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation.continuous_batching.utils import stream_context

from abstractllm.providers.huggingface.worker.batching.requests import BatchRequest
from abstractllm.providers.huggingface.worker.batching.sampler import draw

__all__ = ["draw_after_forward"]


def draw_after_forward(processor: Any, vocabulary_size: int) -> None:
    """Puts our sampler into a batch processor.

    The runner's argmax or multinomial treats all rows alike. Ours is Python code, which no CUDA graph can hold, so it
    runs after what may be captured in one, on the logits that are kept from there.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet.
        vocabulary_size: Logits at each position.
    """
    runner, batch = processor.model_runner, processor.inputs_and_outputs
    compute = runner.compute_batch
    captures = runner.use_cuda_graph_varlen or runner.use_cuda_graph_decode
    # Each graph writes to the same place, whichever is replayed.
    rows = processor.cb_config.max_requests_per_batch if captures else 0
    captured = torch.empty((rows, vocabulary_size), device=processor.model_device)
    passed: list[torch.Tensor] = []

    def keep(scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        if captures:
            captured[: scores.shape[1]].copy_(scores[0])
        else:
            passed.append(scores[0])

    def compute_and_draw(model: Any, batch_data: Any) -> None:
        compute(model, batch_data)
        scores = captured if captures else passed.pop()
        # Requests of a warm-up are transformers' own, and nobody waits for their tokens.
        states = [
            future.state
            for future in batch.requests_in_batch
            if future.has_new_token and isinstance(future.state, BatchRequest)
        ]
        if states:
            with stream_context(batch.compute_stream):
                tokens = draw(scores[: len(states)], [state.slot.row for state in states])
                batch.output_ids[0, : len(states)].copy_(torch.tensor(tokens, dtype=batch.output_ids.dtype))

    runner._sample = keep
    runner.compute_batch = compute_and_draw
