"""The interface of those who are told of each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from abstractllm.call_record import CallRecord

__all__ = ["CallObserver", "Metadata"]

Metadata = Sequence[tuple[str, str | bytes]]
"""The headers of a call, in the order in which they came."""


class CallObserver(Protocol):
    """One who is told of each call, on the event loop: neither method may wait, or raise."""

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Called once for each call, before anything is done for it; `method`, `peer` and the arrival are known."""

    def ended(self, record: CallRecord) -> None:
        """Called once for each call, however it ended, when its record is complete."""
