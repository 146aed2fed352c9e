"""The events of an answer that an engine gives, and what they add to the record of their call."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from abstractllm.call_record import CallRecord
from abstractllm.errors import AbstractLLMError, GenerationCancelledError
from abstractllm.providers.huggingface.convert import as_event, as_finished, is_piece
from abstractllm.providers.huggingface.engine.pending_request import PendingRequest
from abstractllm.providers.huggingface.protocol.messages import Begun, Delta, Done
from abstractllm.types import Event

__all__ = ["answer_events"]


async def answer_events(pending: PendingRequest, record: CallRecord, arrival: float) -> AsyncGenerator[Event, None]:
    """Yields the pieces of an answer and its end, as they come from the engine.

    Args:
        pending: The request in the engine.
        record: The record of the call, which gets counts and times as soon as they are known.
        arrival: The time at which the request was given to the engine.

    Raises:
        AbstractLLMError: The error that the engine ends with.
    """
    begun_at: float | None = None
    is_done = False
    try:
        while True:
            match await pending.next_answer():
                case Begun() as begun:
                    begun_at = time.monotonic()
                    record.queued = begun_at - arrival
                    record.input_tokens, record.cached_input_tokens = begun.input_tokens, begun.cached_tokens
                case Delta() as delta:
                    if record.first_token_at is None:
                        record.first_token_at = time.monotonic()
                    record.output_tokens = delta.output_tokens
                    if is_piece(delta):
                        yield as_event(delta)
                case Done(finish_reason="cancelled"):
                    raise GenerationCancelledError("the request was cancelled")
                case Done() as done:
                    is_done, total = True, time.monotonic() - arrival
                    record.prefill, record.decode = done.until_first_token, done.since_first_token
                    if record.prefill is not None and record.decode is not None:
                        # More exact than the time at which the turn was told, which is at the end of a step.
                        record.queued = max(0.0, total - record.prefill - record.decode)
                    yield as_finished(done, record.queued, total)
                    return
                case AbstractLLMError() as error:
                    raise error
    finally:
        if not is_done:
            _note_early_end(pending, record, arrival, begun_at)


def _note_early_end(pending: PendingRequest, record: CallRecord, arrival: float, begun_at: float | None) -> None:
    """Notes what is known of an answer that has not come to its end: the times at which its messages came."""
    now = time.monotonic()
    if begun_at is None:
        record.queued = now - arrival
    elif record.first_token_at is not None:
        record.prefill = record.first_token_at - begun_at
        record.decode = now - record.first_token_at
        record.output_tokens = pending.output_tokens
