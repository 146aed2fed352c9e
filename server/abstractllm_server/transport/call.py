"""One call on its way through the guard."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc import aio

from abstractllm.call_record import CallRecord
from abstractllm.errors import AbstractLLMError
from abstractllm_server.transport.methods import Method
from abstractllm_server.transport.operations import Operations

__all__ = ["GuardedCall"]


class GuardedCall:
    """One call.

    Args:
        method: The method that it calls.
        context: grpc's handle of it.
        record: Its record.
        task: The task that handles it.

    Attributes:
        operations: What it has grpc do.
        source: The name under which what it holds is bounded: its connection, with its caller where that is known.
        request: Its message, once that was read.
        error: The error that the guard ends it with; None as long as it does not.
        unread: The bytes that were written last, and may wait for their reader.
        is_writing: True while grpc has a message of its answer, or its end, that was not taken yet.
        has_begun: True once a message of its answer was taken.
        is_slow: True while its answer has waited for a reader for some time.
        is_first: True if the server had no call before.
        is_known: True once its caller may make it: by their credentials, or since nobody is asked for any.
        is_probe: True if nobody is asked for credentials for it.
        is_answered: True once its handler has returned: only grpc's own sending of the end is left.
    """

    __slots__ = (
        "_is_cancelled",
        "context",
        "error",
        "has_begun",
        "is_answered",
        "is_first",
        "is_known",
        "is_probe",
        "is_slow",
        "is_writing",
        "method",
        "operations",
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
        self.operations = Operations(task.get_loop())
        self.source = record.peer
        self.request: Any = None
        self.error: AbstractLLMError | None = None
        self.unread = 0
        self.is_answered = False
        self.is_slow = False
        self.is_writing = False
        self.has_begun = False
        self.is_first = False
        self.is_known = False
        self.is_probe = False
        self._is_cancelled = False

    def end(self, error: AbstractLLMError) -> None:
        """Ends the call with an error, wherever it is; the first error counts.

        The error comes after the message that is being sent, if there is one. An answer that is whole stays that.
        """
        if self.error is None and not self.is_answered:
            self.error = error
            if not self.is_writing:
                self._cancel()

    def break_off(self, error: AbstractLLMError) -> None:
        """Ends the call at once, since it only costs: without a status, where grpc takes none."""
        if self.error is None:
            self.error = error
        self._cancel()

    def _cancel(self) -> None:
        if not self._is_cancelled:
            self._is_cancelled = True
            self.task.cancel()
