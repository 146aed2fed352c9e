"""The interface of those who are told of each call, and the one who tells them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from abstractllm.call_record import CallRecord

__all__ = ["CallObserver", "CallObservers", "Metadata"]

logger = logging.getLogger("abstractllm.server")

Metadata = Sequence[tuple[str, str | bytes]]
"""The headers of a call, in the order in which they came."""


class CallObserver(Protocol):
    """One who is told of each call, on the event loop: neither method may wait, or raise."""

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Called once for each call, before anything is done for it; `method`, `peer` and the arrival are known."""

    def ended(self, record: CallRecord) -> None:
        """Called once for each call, however it ended, when its record is complete."""


class CallObservers:
    """Tells several observers of each call: a fault of one costs neither the call nor what the others make of it.

    The first fault of each is logged.

    Args:
        observers: The observers, in the order in which they are told.
    """

    def __init__(self, observers: Sequence[CallObserver]) -> None:
        self._observers = tuple(observers)
        self._faulty: set[CallObserver] = set()

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Tells all of a call that begins."""
        for observer in self._observers:
            self._tell(observer, lambda told: told.started(record, metadata))

    def ended(self, record: CallRecord) -> None:
        """Tells all of a call that has ended."""
        for observer in self._observers:
            self._tell(observer, lambda told: told.ended(record))

    def _tell(self, observer: CallObserver, tell: Callable[[CallObserver], None]) -> None:
        try:
            tell(observer)
        except Exception:
            if observer not in self._faulty:
                self._faulty.add(observer)
                logger.exception("%s failed; further faults of it are not told", type(observer).__name__)
