"""The output of one request of the batch loop, and the loop's counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from abstractllm.providers.huggingface.protocol.messages import Begun, Delta, Done, Failed
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.output import CANCELLED, OutputProcessor
from abstractllm.providers.huggingface.worker.request import EngineRequest, failure_message

__all__ = ["Message", "RequestOutput", "StepCounters"]

Message = Begun | Delta | Done | Failed


@dataclass(slots=True)
class StepCounters:
    """The work that the loop has done; the fields are those of `Counters`."""

    batch_size: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class RequestOutput:
    """The output of one request of the batch loop, from its beginning to its end.

    Args:
        request: The request.
        sampling_state: Its state in the sampler.
        processor: Turns its tokens into messages.
        outbox: The messages of the current step.
        counters: The loop's counters.
        end: Called, in the loop's thread, when the request is over.
    """

    def __init__(
        self,
        request: EngineRequest,
        sampling_state: SamplingState,
        processor: OutputProcessor,
        outbox: list[Message],
        counters: StepCounters,
        end: Callable[[EngineRequest], None],
    ) -> None:
        self.request = request
        self.sampling_state = sampling_state
        self._processor = processor
        self._outbox = outbox
        self._counters = counters
        self._end = end
        self._has_begun = False

    @property
    def is_at_limit(self) -> bool:
        """True if the answer cannot have more than one further token."""
        return self.request.output_tokens + 1 >= self.request.max_tokens

    def begin(self, cached_tokens: int) -> None:
        """Notes that the request is part of a batch; only the first time counts, not that after an eviction.

        Args:
            cached_tokens: Tokens of the prompt whose keys and values are in the cache already.
        """
        if not self._has_begun:
            self._has_begun = True
            self.request.cached_tokens = cached_tokens
            self._counters.prompt_tokens += len(self.request.prompt)
            self._counters.cached_tokens += cached_tokens
            self.request.begun_at = time.monotonic()
            self._outbox.append(Begun(self.request.message.id, len(self.request.prompt), cached_tokens))

    def take(self, token: int) -> bool:
        """Takes the next token; an error, also one of the sampler, ends this request alone.

        Returns:
            Whether the request is over.
        """
        if self.sampling_state.error is not None:
            self.fail(self.sampling_state.error)
            return True
        self._counters.generated_tokens += 1
        try:
            if not self._processor.take(token, self.sampling_state.logprobs):
                return False
            self._outbox.append(self._processor.done())
        except Exception as error:
            self.fail(error)
            return True
        self._end(self.request)
        return True

    def cancel(self) -> None:
        """Ends a cancelled request between two steps."""
        self._processor.finish_reason = CANCELLED
        try:
            self._outbox.append(self._processor.done())
        except Exception as error:
            self.fail(error)
        else:
            self._end(self.request)

    def fail(self, error: Exception) -> None:
        """Ends the request with an error, which is sent after the messages that the step already has of it."""
        self._outbox.append(failure_message(self.request.message.id, error, self.request.output_tokens))
        self._end(self.request)
