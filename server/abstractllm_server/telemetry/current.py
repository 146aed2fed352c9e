"""The record of the call that is being handled."""

from __future__ import annotations

import contextvars

from abstractllm.call_record import CallRecord

__all__ = ["current_record", "note_administration", "set_current_record"]

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


def note_administration(llm: str, **choices: str | bool) -> None:
    """Notes for the audit, on the record of the running call, what an administrator asks for.

    Args:
        llm: The name of the LLM; empty for none.
        **choices: What is to be done, by name; empty texts and False are left out.
    """
    changes = {"llm": llm} | {name: str(value).lower() if value is True else value for name, value in choices.items()}
    record = current_record()
    record.llm, record.changes = llm, {name: str(value) for name, value in changes.items() if value}
