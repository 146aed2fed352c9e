"""Background tasks and threads that are started again when they fail: none dies in silence."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["Supervisor"]

logger = logging.getLogger("abstractllm.server")

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_GOOD_RUN = 60.0
"""Seconds after which a task that fails counts as one that worked: its next start does not wait long."""


class Supervisor:
    """Runs background tasks and threads; one that fails is logged, counted, and started again after a pause.

    One whose function returns is over, and is not started again. The pauses grow from a second to half a minute.

    Attributes:
        restarts: The failures of each task or thread, by its name.
    """

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        """Runs a task in the running event loop until `stop`.

        Args:
            name: Its name in the log and in metrics.
            function: Makes what is awaited; called again for each start.
        """
        self.restarts[name] += 0
        self._tasks.append(asyncio.create_task(self._run(name, function), name=name))

    def run_thread(self, name: str, function: Callable[[], None]) -> None:
        """Runs a daemon thread; it ends when its function returns, or with the process."""
        self.restarts[name] += 0
        threading.Thread(target=self._run_in_thread, args=(name, function), name=name, daemon=True).start()

    def watch_other_threads(self) -> None:
        """Has failures of threads that nobody supervises logged and counted, too."""

        def note(failure: threading.ExceptHookArgs) -> None:
            # Without their numbers, by which each of many threads of one kind would be a series of its own.
            name = "unnamed" if failure.thread is None else re.sub(r"[-_]?[0-9]+", "", failure.thread.name)
            self.restarts[name] += 1
            logger.error("the thread %s failed and is gone", name, exc_info=failure.exc_value)

        threading.excepthook = note

    def stop(self) -> None:
        """Cancels the tasks; threads are told to end by whoever made their functions."""
        for task in self._tasks:
            task.cancel()

    def measurements(self) -> Iterator[Measurement]:
        """Returns how often each task or thread failed."""
        for name, count in self.restarts.copy().items():
            yield Measurement("abstractllm.server.tasks.restarts", count, {"task": name})

    async def _run(self, name: str, function: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await function()
                return
            except BaseException as error:
                # A cancellation of something within is a failure; SystemExit too, which would end the event loop.
                if task.cancelling():
                    raise
                failures = 1 if time.monotonic() - began > _GOOD_RUN else failures + 1
                pause = self._note_failure(name, error, failures)
            await asyncio.sleep(pause)

    def _run_in_thread(self, name: str, function: Callable[[], None]) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                function()
                return
            except BaseException as error:
                failures = 1 if time.monotonic() - began > _GOOD_RUN else failures + 1
                pause = self._note_failure(name, error, failures)
            time.sleep(pause)

    def _note_failure(self, name: str, error: BaseException, failures: int) -> float:
        """Logs and counts a failure; returns the seconds until the next start."""
        self.restarts[name] += 1
        pause: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10))
        logger.error("the background task %s failed and starts again in %.0f s", name, pause, exc_info=error)
        return pause
