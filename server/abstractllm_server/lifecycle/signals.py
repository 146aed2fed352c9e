"""The signals of the server's process, and its end: a thread of their own, which nothing that blocks can hold up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NoReturn

from abstractllm_server.lifecycle.stack_dump import log_stacks
from abstractllm_server.lifecycle.standard_descriptors import open_standard_descriptors

__all__ = ["CLOSING_SECONDS", "Action", "ProcessSignals", "actions"]

logger = logging.getLogger("abstractllm.server")

CLOSING_SECONDS = 0.8
"""Seconds after the grace in which everything must be closed; then the process ends anyway."""

_STARTING_SECONDS = 10.0
"""Seconds in which a process that is asked to stop while it starts must have started, and stopped."""
_SAME_SIGNAL_SECONDS = 0.1
"""Two requests to stop within this time are one: `timeout`, for example, sends its signal twice."""
_LAST_ACTS_SECONDS = 0.5
"""Seconds that what is done before a forced end may take."""
_NO_SIGNAL = b"\0"
"""Wakes the thread that reads signals."""
_INTERRUPTED_STATUS = 130
"""The exit status of a process that is ended by a second signal, as a shell tells it."""


class Action(Enum):
    """The effect of a signal."""

    STOP = auto()
    """The running calls may end within the grace, then the process ends; a second one ends it at once."""
    RELOAD = auto()
    """The configuration is read again."""
    DUMP = auto()
    """The stacks of all threads and tasks are written to the log."""
    IGNORE = auto()


_STOP = ("SIGTERM", "SIGINT", "SIGPWR", "SIGXCPU")
_RELOAD = ("SIGHUP",)
_DUMP = ("SIGUSR1", "SIGQUIT")
_LEFT = (
    # They cannot be caught.
    *("SIGKILL", "SIGSTOP"),
    # The process did something impossible.
    *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGEMT"),
    # Job control of a terminal, and children's ends: ignored unless somebody makes use of them.
    *("SIGTSTP", "SIGCONT", "SIGCHLD"),
)


def actions() -> dict[int, Action]:
    """Returns the action of every signal whose default is not left in force."""
    left = {getattr(signal, name, None) for name in _LEFT}
    table = {int(number): Action.IGNORE for number in signal.valid_signals() if number not in left}
    for action, names in ((Action.STOP, _STOP), (Action.RELOAD, _RELOAD), (Action.DUMP, _DUMP)):
        for name in names:
            if hasattr(signal, name):
                table[int(getattr(signal, name))] = action
    return table


class ProcessSignals:
    """Takes in the process's signals, in a thread, and ends the process once its time is over.

    The kernel's handler writes a signal's number to a pipe, whatever Python code is doing; the thread reads it. So the
    time in which the process must have ended runs from the signal on, even if the event loop is blocked, or ends in a
    way of its own. The thread itself never logs, nor takes a lock that others hold for long.

    Attributes:
        grace: Seconds that running calls may go on after a request to stop.
    """

    def __init__(self) -> None:
        self.grace = 0.0
        self._actions = actions()
        self._last_acts: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_stop: Callable[[], None] = _nothing
        self._on_reload: Callable[[], None] = _nothing
        self._stop_requested_at: float | None = None
        self._deadline: float | None = None
        self._is_reload_pending = False
        self._dump: threading.Thread | None = None
        self._handlers_before: dict[int, Any] = {}
        self._wakeup_before = self._writer = -1

    @property
    def is_stopping(self) -> bool:
        """True once the process was asked to stop."""
        return self._stop_requested_at is not None

    @property
    def seconds_left(self) -> float:
        """Seconds that running calls may still go on, counted from the request to stop; the whole grace before it."""
        requested_at = self._stop_requested_at
        spent = 0.0 if requested_at is None else time.monotonic() - requested_at
        return max(0.0, self.grace - spent)

    def install(self) -> None:
        """Sets what signals do from now on; called in the main thread, as early as can be."""
        open_standard_descriptors()
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number, action in self._actions.items():
            handler = signal.SIG_IGN if action is Action.IGNORE else _write_to_pipe
            self._handlers_before[number] = signal.signal(number, handler)
            if action is not Action.IGNORE:
                signal.siginterrupt(number, False)
        threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True).start()

    def restore(self) -> None:
        """Undoes `install`, for a process that goes on without a server."""
        for number, handler in self._handlers_before.items():
            if handler is not None:  # one that Python has not set, and cannot set again
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)

    def attach(self, on_stop: Callable[[], None], on_reload: Callable[[], None]) -> None:
        """Has the running event loop told of the signals, also of those that have come before.

        Args:
            on_stop: Called once, in the loop, when the process is asked to stop.
            on_reload: Called, in the loop, when it is asked to reload its configuration.
        """
        with self._lock:
            self._loop, self._on_stop, self._on_reload = asyncio.get_running_loop(), on_stop, on_reload
            if self.is_stopping:
                self._deadline = time.monotonic() + self.grace + CLOSING_SECONDS
                # The thread waits until the earlier deadline; where the pipe is full, it wakes anyway.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, _NO_SIGNAL)
                self._tell(on_stop)
            elif self._is_reload_pending:
                self._tell(on_reload)

    def before_forced_end(self, act: Callable[[], object]) -> None:
        """Registers what is done before the process is ended by force; all of it may take half a second."""
        self._last_acts.append(act)

    def end(self, status: int) -> NoReturn:
        """Ends the process at once, but for what `before_forced_end` has registered."""
        with contextlib.suppress(Exception):
            last_acts = threading.Thread(target=self._act_last, name="last-acts", daemon=True)
            last_acts.start()
            last_acts.join(_LAST_ACTS_SECONDS)
        os._exit(status)

    def _act_last(self) -> None:
        for act in self._last_acts:
            with contextlib.suppress(Exception):
                act()

    def _watch(self, reader: int) -> None:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while True:
            deadline = self._deadline
            seconds = None if deadline is None else deadline - time.monotonic()
            if seconds is not None and seconds <= 0:
                self.end(1)
            if not poll.poll(None if seconds is None else seconds * 1000):
                continue
            numbers = os.read(reader, 4096)
            if not numbers:  # the other end is closed
                os.close(reader)
                return
            for number in numbers:
                # A thread that cannot be started, say, must not keep the next signal from being taken.
                with contextlib.suppress(Exception):
                    self._take(number)

    def _take(self, number: int) -> None:
        match self._actions.get(number):
            case Action.STOP:
                self._take_stop(number)
            case Action.RELOAD:
                with self._lock:
                    self._is_reload_pending = True
                    if self._loop is not None and not self.is_stopping:
                        self._tell(self._on_reload)
            case Action.DUMP:
                if self._dump is None or not self._dump.is_alive():
                    self._dump = threading.Thread(target=log_stacks, args=(self._loop,), name="dump", daemon=True)
                    self._dump.start()

    def _take_stop(self, number: int) -> None:
        now = time.monotonic()
        with self._lock:
            requested_at = self._stop_requested_at
            if requested_at is None:
                self._stop_requested_at = now
                seconds = _STARTING_SECONDS if self._loop is None else self.grace + CLOSING_SECONDS
                self._deadline = now + seconds
                if self._loop is not None:
                    self._tell(self._on_stop)
                return
        if number in (signal.SIGTERM, signal.SIGINT) and now - requested_at > _SAME_SIGNAL_SECONDS:
            self.end(_INTERRUPTED_STATUS)

    def _tell(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        self._is_reload_pending = False
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)


def _write_to_pipe(number: int, frame: object) -> None:
    """Does nothing in Python: a signal that has a handler there is written to the pipe before."""


def _nothing() -> None:
    pass
