"""The signals of engine and download processes: they end with their channel, not by a signal meant for the server.

A service manager or a container sends SIGTERM to every process of a service, a terminal sends SIGHUP; the server then
lets running requests end, for which it needs its engines. So a child process ignores what can be ignored. It ends when
its channel closes, and with its parent: see `launcher`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Iterator

__all__ = ["IGNORED", "blocked_signals", "settle_signals"]

_FAULTS = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
    if hasattr(signal, name)
}
"""The signals by which a process ends that did something impossible."""
_LEFT = _FAULTS | {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD}

IGNORED = frozenset(signal.valid_signals() - _LEFT - {signal.SIGUSR1})
"""The signals that a child process ignores. SIGUSR1 has it print the stacks of its threads."""


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Blocks, in the calling thread, what a child process ignores: one that is started meanwhile begins with that.

    Otherwise a signal could end the child before `settle_signals` is reached.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED | {signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def settle_signals() -> None:
    """Sets what signals do in a child process; called in its main thread, before anything else."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED | {signal.SIGUSR1})
