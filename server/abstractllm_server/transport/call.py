"""One call on its way through the guard."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from abstractllm.call_record import CallRecord
from abstractllm.errors import AbstractLLMError
from abstractllm_server.transport.methods import Method

__all__ = ["GuardedCall"]


class GuardedCall:
    """One call.

    Args:
        method: The method that it calls.
        context: grpc's handle of it.
        record: Its record.
        task: The task that handles it.

    Attributes:
        source: The name under which what it holds is bounded: its connection, with its caller where that is known.
        request: Its message, once that was read.
        error: The error that the guard ends it with; None as long as it does not.
        unread: The bytes that were written last, and may wait for their reader.
        is_slow: True while its answer has waited for a reader for some time.
        is_first: True if the server had no call before.
        is_probe: True if nobody is asked for credentials for it.
        is_answered: True once its handler has returned: only grpc's own sending of the end is left.
    """

    __slots__ = (
        "context",
        "error",
        "is_answered",
        "is_first",
        "is_probe",
        "is_slow",
        "method",
        "record",
        "request",
        "source",
        "task",
        "unread",
    )

    def __init__(
        self, method: Method, context: aio.ServicerContext[Any, Any], record: CallRecord, task: asyncio.Task[Any]
    ) -> None:
        self.method = method
        self.context = context
        self.record = record
        self.task = task
        self.source = record.peer
        self.request: Any = None
        self.error: AbstractLLMError | None = None
        self.unread = 0
        self.is_answered = False
        self.is_slow = False
        self.is_first = False
        self.is_probe = False

    def end(self, error: AbstractLLMError) -> None:
        """Ends the call with an error, wherever it is; the first error counts."""
        if self.error is None:
            self.error = error
            self.task.cancel()
