"""A thread that does one thing after another, and holds up nobody's end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["ThreadOfItsOwn"]

T = TypeVar("T")


class ThreadOfItsOwn:
    """A thread for what must be done in one and the same: it starts with the first task, and stays.

    Unlike a `ThreadPoolExecutor`, it does not keep the process from ending while a task hangs.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_started = False

    def submit(self, act: Callable[[], T]) -> Future[T]:
        """Has something done as soon as what came before is done; it can be cancelled until then."""
        with self._lock:
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        task: Future[T] = Future()
        self._tasks.put((task, act))
        return task

    def _run(self) -> None:
        while True:
            task, act = self._tasks.get()
            if task.set_running_or_notify_cancel():
                try:
                    result = act()
                except BaseException as error:
                    task.set_exception(error)
                else:
                    task.set_result(result)
