"""The record of the call that is being handled."""

from __future__ import annotations

import contextvars

from abstractllm.call_record import CallRecord

__all__ = ["current_record", "set_current_record"]

_record: contextvars.ContextVar[CallRecord] = contextvars.ContextVar("call_record")


def current_record() -> CallRecord:
    """Returns the record of the call whose handler runs.

    Raises:
        LookupError: Outside of a call.
    """
    return _record.get()


def set_current_record(record: CallRecord) -> None:
    """Makes a record that of the running task: gRPC runs each call in a task of its own."""
    _record.set(record)
