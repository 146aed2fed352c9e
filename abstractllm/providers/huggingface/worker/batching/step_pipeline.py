"""The order of a step's work: preparing, the forward pass, sampling, and taking the tokens.

One after another, a device waits while the host takes the tokens of a step and prepares the next one. Where steps
*overlap*, the next step is prepared, and its forward pass is launched, while the tokens of the one before are not yet
known to the host; they are carried over on the device. So the host's order is

    prepare step n + 1, launch its forward pass, wait for the tokens of step n, take them, launch the sampling of n + 1.

When a step is sampled, the host knows all tokens before it. Therefore formats, penalties and the rules of a model's
generation configuration work as ever, and only a forward pass can turn out to have been in vain: that of a request
which has ended with the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation.continuous_batching.requests import RequestStatus
from transformers.generation.continuous_batching.utils import stream_context

from abstractllm.providers.huggingface.worker.batching.sampler import BatchSampler, SampledStep
from abstractllm.providers.huggingface.worker.batching.scheduling import BatchRequest
from abstractllm.providers.huggingface.worker.device_tensors import index_tensor

__all__ = ["StepPipeline"]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step whose tokens the host does not know yet."""

    futures: list[Any]
    """Its requests, as they were scheduled, in the order of the batch."""
    sampled: list[BatchRequest]
    """Those of which a token was sampled, in the order of the tokens."""
    step: SampledStep | None
    """Their tokens; None if there are none."""


class StepPipeline:
    """Runs the steps of a batch processor, with our sampler in the place of the model runner's own.

    The runner's own sampling, argmax or multinomial, is the same for all requests. Ours is Python code, which a CUDA
    graph cannot capture. So it runs after the forward pass, which may be captured, on logits that are kept from there.
    The tokens are read from the device once, and not copied back.

    Args:
        processor: A `ContinuousBatchProcessor` that has run nothing yet.
        vocabulary_size: The number of logits at each position.
        overlaps: Whether the next step begins before the tokens of the one before are known to the host.
    """

    def __init__(self, processor: Any, vocabulary_size: int, *, overlaps: bool) -> None:
        self._runner, self._batch = processor.model_runner, processor.inputs_and_outputs
        self._overlaps = overlaps
        self._sampler = BatchSampler()
        self._flight: _Flight | None = None
        self._is_captured: bool = self._runner.use_cuda_graph_varlen or self._runner.use_cuda_graph_decode
        # Each graph writes to the same place, whichever is replayed.
        rows = processor.cb_config.max_requests_per_batch if self._is_captured else 0
        self._captured_logits = torch.empty((rows, vocabulary_size), device=processor.model_device)
        self._kept_logits: list[torch.Tensor] = []
        self._prepare_next, self._update = processor.prepare_next_batch, processor.update_batch
        self._compute, self._wait_for_device = self._runner.compute_batch, self._batch.retrieve_device_outputs
        processor.prepare_next_batch, processor.update_batch = self._prepare, self._end_step
        self._runner.compute_batch, self._runner._sample = self._launch, self._keep_logits
        self._batch.retrieve_device_outputs = lambda: None

    def take_tokens(self) -> list[BatchRequest]:
        """Waits for the tokens of the step before, if there is one, and hands them to their requests.

        Returns:
            The requests whose tokens on the device are not the final ones: a next step that has begun is in vain.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return []
        lost = [index for index, state in enumerate(flight.sampled) if not _goes_on(state)]
        tokens = [] if flight.step is None else flight.step.take(lost)
        taken = {id(state): token for state, token in zip(flight.sampled, tokens, strict=True)}
        futures = [future for future in flight.futures if _goes_on(future.state)]
        new_tokens = [taken[id(future.state)] for future in futures if future.has_new_token]
        self._batch.prepare_batch_update = lambda: (futures, new_tokens, None)
        with stream_context(self._batch.compute_stream):  # blocks that are wiped are written by no step after it
            self._update()
        return [] if flight.step is None else [flight.sampled[index] for index in flight.step.retried]

    def _prepare(self) -> bool:
        """Prepares the next step; takes the place of the processor's own."""
        if not self._overlaps or not self._is_worth_overlapping():
            self.take_tokens()
        if self._prepare_next():
            return True
        if self._flight is None:
            return False
        self.take_tokens()
        return bool(self._prepare_next())

    def _is_worth_overlapping(self) -> bool:
        """Tells whether any request goes on after the step that is in flight, as far as can be known."""
        flight = self._flight
        return flight is None or any(_goes_on(state) and not state.output.is_at_limit for state in flight.sampled)

    def _launch(self, model: Any, batch_data: Any) -> None:
        """Launches a forward pass, and its sampling once the tokens of the step before have been taken."""
        batch = self._batch
        futures = list(batch.requests_in_batch)
        self._kept_logits.clear()  # those of a step that has failed
        if self._flight is not None and self._flight.step is not None:
            with stream_context(batch.compute_stream):
                self._carry_over(self._flight.sampled, self._flight.step.tokens, futures)
        self._compute(model, batch_data)
        logits = self._captured_logits if self._is_captured else self._kept_logits.pop()
        in_vain = {id(state) for state in self.take_tokens()}
        if not all(isinstance(future.state, BatchRequest) for future in futures):
            # The requests of a warm-up are transformers' own, and nobody waits for their tokens.
            self._wait_for_device()
            return
        with_token = [future.state for future in futures if future.has_new_token]
        rows = [row for row, state in enumerate(with_token) if _goes_on(state) and id(state) not in in_vain]
        sampled, step = [with_token[row] for row in rows], None
        if sampled:
            with stream_context(batch.compute_stream):
                is_whole = rows == list(range(len(rows)))
                logits = logits[: len(rows)] if is_whole else logits.index_select(0, index_tensor(rows, logits.device))
                step = self._sampler.sample(logits, [state.output.sampling_state for state in sampled])
        else:
            self._wait_for_device()
        self._flight = _Flight([future for future in futures if id(future.state) not in in_vain], sampled, step)
        for future in futures:
            if id(future.state) in in_vain and _goes_on(future.state):
                future.state.position_offset -= future.query_length  # its token is another one now

    def _end_step(self) -> None:
        """Takes the place of the processor's update."""
        if not self._overlaps:
            self.take_tokens()

    def _keep_logits(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        if self._is_captured:
            self._captured_logits[: scores.shape[1]].copy_(scores[0])
        else:
            self._kept_logits.append(scores[0])

    def _carry_over(self, sampled: list[BatchRequest], tokens: torch.Tensor, futures: list[Any]) -> None:
        """Puts the tokens that the host does not know yet into the inputs of the next step, on the device.

        Args:
            sampled: The requests whose tokens are not known.
            tokens: `[requests]`: their tokens.
            futures: The requests of the next step.
        """
        sources = {id(state): source for source, state in enumerate(sampled)}
        places, carried, place = [], [], 0
        for future in futures:
            if (source := sources.get(id(future.state))) is not None:
                places.append(place)
                carried.append(source)
            place += future.query_length
        ids = self._batch.input_ids
        if places == carried == list(range(len(tokens))):
            ids[: len(tokens)].copy_(tokens)
        elif places:
            values = tokens.index_select(0, index_tensor(carried, tokens.device)).to(ids.dtype)
            ids.index_copy_(0, index_tensor(places, ids.device), values)


def _goes_on(state: Any) -> bool:
    """Tells whether a request is still in the batch: it has neither ended nor lost its place."""
    return state.status not in (RequestStatus.FINISHED, RequestStatus.PENDING)
