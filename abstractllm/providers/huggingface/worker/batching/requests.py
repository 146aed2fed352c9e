"""A request in transformers' continuous batching, with an end of its own making."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformers.generation.continuous_batching.requests import RequestState, RequestStatus
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.batching.request_output import RequestOutput

__all__ = ["SCHEDULER", "BatchRequest", "BatchScheduler"]

SCHEDULER = "abstractllm"
"""The name of `BatchScheduler` in a `ContinuousBatchingConfig`."""


@dataclass
class BatchRequest(RequestState):
    """One request in the batch.

    The stock request knows end tokens and a length; this one asks its slot after each token, in the same step, so that
    a stop sequence or a cancellation frees its blocks at once.
    """

    slot: RequestOutput = field(kw_only=True)
    was_evicted: bool = False

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        """Takes a token; true if the request is over."""
        self.generated_tokens.append(token_id)
        self.tokens_to_process = [token_id]
        if self.slot.take(token_id):
            self.status = RequestStatus.FINISHED
            return True
        return False

    def create_equivalent_initial_request(self) -> BatchRequest:
        """The request with its answer so far as part of its prompt: what is left of it after an eviction."""
        return BatchRequest(
            request_id=self.request_id,
            initial_tokens=self.initial_tokens + self.generated_tokens,
            max_new_tokens=None,
            slot=self.slot,
            was_evicted=True,
        )

    def to_generation_output(self) -> Any:
        """Nothing: the slot has sent everything itself."""
        return None


class BatchScheduler(FIFOScheduler):
    """Takes requests in their order, and lets go of cancelled ones wherever they are: waiting, prefilling, evicted.

    The stock scheduler is told of cancellations through a queue of its own; one that comes while its request is on the
    way from one queue to another is lost, and one that meets an evicted request leaves new ones blocked.
    """

    def reset(self) -> None:
        """Forgets everything; called before the first batch too."""
        super().reset()
        self.evictions = 0
        """Requests that lost their blocks to others."""

    def add_waiting_request(self, state: Any) -> None:
        """Takes a new request, or one that was evicted."""
        self.evictions += state.was_evicted
        super().add_waiting_request(state)

    def clear_cancelled_requests(self) -> list[RequestState]:
        """Called before each batch."""
        states: list[Any] = [*self.active_requests.values(), *self.waiting_requests.values()]
        cancelled = [state for state in states if state.slot.job.cancelled]
        for state in cancelled:
            self.set_request_cancellation(state.request_id)
            state.slot.cancel()
        if cancelled:
            self.block_new_requests = False
        return super().clear_cancelled_requests()

    def _schedule_request(self, state: Any, *arguments: Any) -> None:
        state.slot.begin(state.position_offset)
        super()._schedule_request(state, *arguments)


class NullOutputRouter:
    """Where the manager puts outputs: nowhere, since slots send their own; only its own failures are taken."""

    def deliver(self, output: object) -> None:
        """Called for an output."""

    def deliver_batch(self, outputs: list[object]) -> None:
        """Called for the outputs of a step."""

    def fail_and_deliver(self, state: BatchRequest, error: Exception) -> None:
        """Called when the manager cannot take a request."""
        state.slot.fail(error)


SCHEDULER_MAPPING[SCHEDULER] = BatchScheduler
