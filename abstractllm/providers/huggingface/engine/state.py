"""How an engine is, and who waits to hear that it has changed."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable

from abstractllm.enums import LlmState
from abstractllm.errors import AbstractLLMError
from abstractllm.types import LoadProgress

__all__ = ["Status", "fulfil"]

logger = logging.getLogger("abstractllm.engine")


class Status:
    """An engine's state. The engine's lock is held in every method.

    Args:
        on_change: Called, from any thread, when the state or its reason has changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.state, self.reason = LlmState.UNLOADED, ""
        self.progress = LoadProgress(LlmState.UNLOADED)
        self.failure: AbstractLLMError | None = None
        """Why the model could not be loaded, until it is tried again."""
        self._on_change = on_change
        self._watchers: list[concurrent.futures.Future[None]] = []

    def become(
        self,
        state: LlmState,
        reason: str = "",
        phase: str = "",
        fraction: float | None = None,
        failure: AbstractLLMError | None = None,
    ) -> None:
        """Changes the state and tells everybody."""
        changed = (state, reason) != (self.state, self.reason)
        self.state, self.reason, self.failure = state, reason, failure
        self.progress = LoadProgress(state, phase, fraction)
        watchers, self._watchers = self._watchers, []
        fulfil(watchers)
        if changed:
            try:
                self._on_change()
            except Exception:  # a listener's fault is not the engine's
                logger.exception("a listener to the state of a model failed")

    def watch(self) -> concurrent.futures.Future[None]:
        """Is done after the next change."""
        watcher: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._watchers.append(watcher)
        return watcher

    def unwatch(self, watcher: concurrent.futures.Future[None]) -> None:
        """Forgets one whose waiter has left."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)


def fulfil(watchers: list[concurrent.futures.Future[None]]) -> None:
    """Wakes those who wait; some may have left."""
    for watcher in watchers:
        if watcher.set_running_or_notify_cancel():
            watcher.set_result(None)
