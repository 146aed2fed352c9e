"""Requests in transformers' continuous batching, and the order in which they are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers.generation.continuous_batching.requests import RequestState, RequestStatus
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

from abstractllm.providers.huggingface.worker.batching.prefill_budget import step_tokens
from abstractllm.providers.huggingface.worker.batching.prefill_order import PrefillOrder
from abstractllm.providers.huggingface.worker.batching.request_output import RequestOutput

__all__ = ["SCHEDULER", "BatchRequest", "BatchScheduler", "NullOutputRouter"]

SCHEDULER = "abstractllm"
"""The name of `BatchScheduler` in a `ContinuousBatchingConfig`."""


@dataclass
class BatchRequest(RequestState):
    """One request in the batch.

    transformers' own request ends at an end token or a length. This one hands each token to its output, which tells in
    the same step whether the request is over, so that a stop sequence or a cancellation frees its blocks at once.
    """

    output: RequestOutput = field(kw_only=True)
    caller: str = ""
    """The caller's name; callers take turns."""
    was_evicted: bool = False

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        """Takes a token and tells whether the request is over."""
        self.generated_tokens.append(token_id)
        self.tokens_to_process = [token_id]
        if self.output.take(token_id):
            self.status = RequestStatus.FINISHED
            return True
        return False

    def create_equivalent_initial_request(self) -> BatchRequest:
        """Returns the request that replaces this one after an eviction: its answer so far is part of its prompt."""
        return BatchRequest(
            request_id=self.request_id,
            initial_tokens=self.initial_tokens + self.generated_tokens,
            max_new_tokens=None,
            output=self.output,
            caller=self.caller,
            was_evicted=True,
        )

    def to_generation_output(self) -> Any:
        """Returns nothing: the output has sent everything itself."""
        return None


class BatchScheduler(FIFOScheduler):
    """Takes requests in turns by caller, and ends cancelled ones wherever they are: waiting, in prefill, evicted.

    transformers' own scheduler learns of cancellations through a queue. A cancellation that comes while its request
    moves from one queue to another is lost there, and one of an evicted request keeps new requests blocked.
    """

    def reset(self) -> None:
        """Forgets everything; also called before the first batch."""
        super().reset()
        self._prefill_order: PrefillOrder[Any] = PrefillOrder(
            lambda state: state.caller, lambda state: len(state.remaining_prefill_tokens)
        )
        self.evictions = 0
        """Requests that lost their blocks to others."""

    def add_waiting_request(self, state: Any) -> None:
        """Takes a new request, or one that was evicted."""
        self.evictions += state.was_evicted
        super().add_waiting_request(state)

    def _process_candidates(self, candidates: list[Any], token_budget: int, *arguments: Any) -> Any:
        """Chooses the requests of the next batch: those that decode first, then prompts in turns by caller."""
        decoding = [state for state in candidates if state.status == RequestStatus.DECODING]
        prompts = [state for state in candidates if state.status != RequestStatus.DECODING]
        prompts = self._prefill_order.sort(prompts, decoding)
        if self.cache.cache_tensor.device.type == "cpu":
            lengths = (len(state.remaining_prefill_tokens) for state in prompts)
            token_budget = step_tokens(token_budget, len(decoding), lengths)
        chosen = super()._process_candidates([*decoding, *prompts], token_budget, *arguments)
        for future in chosen[0]:
            self._prefill_order.charge(future.state, future.query_length)
        return chosen

    def clear_cancelled_requests(self) -> list[RequestState]:
        """Ends cancelled requests; called before each batch."""
        states: list[Any] = [*self.active_requests.values(), *self.waiting_requests.values()]
        cancelled = [state for state in states if state.output.request.cancelled]
        for state in cancelled:
            self.set_request_cancellation(state.request_id)
            state.output.cancel()
            state.status = RequestStatus.FINISHED
        if cancelled:
            self.block_new_requests = False
        return super().clear_cancelled_requests()

    def finish_request(self, request_id: str) -> None:
        """Frees what a request holds of the cache; numbers that are not finite are wiped out, and found by nobody."""
        state: Any = self.active_requests.get(request_id)
        if state is not None and state.output.sampling_state.has_invalid_logits:
            for allocator in self.cache.cache_allocators.values():
                shared = allocator.ledger.shared_ref_counts
                blocks = [block for block in allocator.block_table.get(request_id, ()) if block not in shared]
                allocator._copy_view[blocks] = 0
            self.cache.free_blocks(request_id, no_cache=True)
        super().finish_request(request_id)

    def _schedule_request(self, state: Any, *arguments: Any) -> None:
        state.output.begin(state.position_offset)
        super()._schedule_request(state, *arguments)


class NullOutputRouter:
    """Drops the manager's outputs, since requests send their own; only failures of the manager are passed on."""

    def deliver(self, output: object) -> None:
        """Drops an output."""

    def deliver_batch(self, outputs: list[object]) -> None:
        """Drops the outputs of a step."""

    def fail_and_deliver(self, state: BatchRequest, error: Exception) -> None:
        """Fails a request that the manager could not take."""
        state.output.fail(error)


SCHEDULER_MAPPING[SCHEDULER] = BatchScheduler
