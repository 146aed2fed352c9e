"""One answer as its tokens come: text, log-probabilities, stop sequences, the reason why it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from abstractllm.enums import FinishReason
from abstractllm.providers.huggingface.worker.protocol import Delta, Done, Logprob, TopToken
from abstractllm.providers.huggingface.worker.vocabulary import Detokenizer
from abstractllm.stops import StopScanner

if TYPE_CHECKING:
    from abstractllm.providers.huggingface.worker.loop import Job
    from abstractllm.providers.huggingface.worker.model import LoadedModel

__all__ = ["CANCELLED", "AnswerWriter", "Report"]

CANCELLED = "cancelled"

Report = tuple[float, list[int], list[float]]
"""The log-probability of the chosen token, the likeliest tokens, and theirs."""


class AnswerWriter:
    """Turns one request's tokens into messages.

    Args:
        loaded: The model.
        job: The request.
        send: Is given the pieces of the answer.
    """

    def __init__(self, loaded: LoadedModel, job: Job, send: Callable[[Delta], None]) -> None:
        self._vocabulary = loaded.vocabulary
        self._ends = loaded.ends
        self._job = job
        self._send = send
        self._text = Detokenizer(loaded.vocabulary)
        self._stops = StopScanner(job.request.sampling.stop or ())
        self._held: list[tuple[int, Logprob]] = []
        """Log-probabilities of tokens whose text is not sent yet, with the place where that text begins."""
        self._sent = 0
        """Characters sent."""
        self._kept: list[Delta] = []
        """What is sent at the end, of an answer that is wanted whole."""
        self.began = time.monotonic()
        """When the request's turn came."""
        self._first_token: float | None = None
        self.finish_reason = ""
        """Set when the answer is over."""

    def take(self, token: int, report: Report | None = None) -> bool:
        """Takes the next token, and says whether the answer is over."""
        if self._job.cancelled:
            self.finish_reason = CANCELLED
            return True
        self._job.output_tokens += 1
        if self._first_token is None:
            self._first_token = time.monotonic() - self.began
        if token in self._ends:
            self.finish_reason = FinishReason.STOP
            return True
        if report is not None:
            self._held.append((len(self._text.text), self._logprob(token, report)))
        self._give(self._stops.push(self._text.push(token)))
        if self._stops.found:
            self.finish_reason = FinishReason.STOP_SEQUENCE
        elif self._job.output_tokens >= self._job.max_tokens:
            self.finish_reason = FinishReason.MAX_TOKENS
        return bool(self.finish_reason)

    def done(self) -> Done:
        """Sends what was held back and says how the answer ended."""
        if self.finish_reason in (FinishReason.STOP, FinishReason.MAX_TOKENS):
            rest = self._stops.push(self._text.flush())
            if self._stops.found:
                self.finish_reason = FinishReason.STOP_SEQUENCE
                self._give(rest)
            else:
                self._give(rest + self._stops.flush(), last=True)
        request_id = self._job.request.id
        if self._kept:
            logprobs = tuple(logprob for delta in self._kept for logprob in delta.logprobs)
            self._send(Delta(request_id, "".join(delta.text for delta in self._kept), logprobs))
        return Done(
            request_id,
            self.finish_reason,
            self._stops.found,
            len(self._job.prompt),
            self._job.output_tokens,
            self._first_token,
        )

    def _give(self, text: str, last: bool = False) -> None:
        self._sent += len(text)
        ready = [logprob for begin, logprob in self._held if begin < self._sent or last]
        if not text and not (ready and last):
            return
        self._held = self._held[len(ready) :]
        piece = Delta(self._job.request.id, text, tuple(ready), output_tokens=self._job.output_tokens)
        if self._job.request.whole:
            self._kept.append(piece)
        else:
            self._send(piece)

    def _logprob(self, token: int, report: Report) -> Logprob:
        value, ids, values = report
        bytes_of = self._vocabulary.token_bytes
        top = tuple(TopToken(id, bytes_of(id), logprob) for id, logprob in zip(ids, values, strict=True))
        return Logprob(token, bytes_of(token), value, top)
