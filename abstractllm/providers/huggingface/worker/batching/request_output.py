"""One request's place in the batch loop, and the loop's tally."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abstractllm.providers.huggingface.protocol.messages import Begun, Delta, Done, Failed
from abstractllm.providers.huggingface.worker.batching.sampling_state import SamplingState
from abstractllm.providers.huggingface.worker.output import CANCELLED, OutputProcessor
from abstractllm.providers.huggingface.worker.request import failure

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.request import EngineRequest

__all__ = ["Message", "RequestOutput", "StepCounters"]

Message = Begun | Delta | Done | Failed


@dataclass(slots=True)
class StepCounters:
    """What the loop has done; the fields are those of `Counters`."""

    batch_size: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class RequestOutput:
    """One request's place in the batch loop: it draws, writes and ends.

    Args:
        job: The request.
        row: Its sampling settings.
        answer: What turns its tokens into text.
        outbox: The step's messages.
        tally: What the loop counts.
        end: Called, in the loop's thread, when the request is over.
    """

    def __init__(
        self,
        job: EngineRequest,
        row: SamplingState,
        answer: OutputProcessor,
        outbox: list[Message],
        tally: StepCounters,
        end: Callable[[EngineRequest], None],
    ) -> None:
        self.job = job
        self.row = row
        self._answer = answer
        self._outbox = outbox
        self._tally = tally
        self._end = end
        self._begun = False

    def begin(self, cached_tokens: int) -> None:
        """The request is part of a batch for the first time, or again.

        Args:
            cached_tokens: Tokens whose keys and values it has already.
        """
        if not self._begun:
            self._begun = True
            self.job.cached_tokens = cached_tokens
            self._tally.prompt_tokens += len(self.job.prompt)
            self._tally.cached_tokens += cached_tokens
            self._outbox.append(Begun(self.job.request.id))

    def take(self, token: int) -> bool:
        """Takes a token; true if the request is over. What goes wrong here ends this request alone."""
        self._tally.generated_tokens += 1
        try:
            if not self._answer.take(token, self.row.report):
                return False
            self._outbox.append(self._answer.done())
        except Exception as error:
            self.fail(error)
            return True
        self._end(self.job)
        return True

    def cancel(self) -> None:
        """Ends a cancelled request outside a batch."""
        self._answer.finish_reason = CANCELLED
        self._outbox.append(self._answer.done())
        self._end(self.job)

    def fail(self, error: Exception) -> None:
        """Ends the request with an error; it goes out after what the step has brought of the request already."""
        self._outbox.append(failure(self.job.request.id, error, self.job.output_tokens))
        self._end(self.job)
