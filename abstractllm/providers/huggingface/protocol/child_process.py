"""The operating system processes of engines and of downloads, seen from the provider."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import Any, Generic, TypeVar

from abstractllm._core.process_groups import process_groups
from abstractllm.providers.huggingface.protocol.channel import Channel
from abstractllm.providers.huggingface.protocol.messages import FromEngine
from abstractllm.providers.huggingface.protocol.signals import blocked_signals

__all__ = ["ChildProcess", "EngineProcess", "describe_exit"]

logger = logging.getLogger("abstractllm.engine")

Received = TypeVar("Received")

_TAIL_LINES = 40
_END_TIMEOUT = 10.0
"""Seconds that a process has to end after its channel was closed; then it is killed."""


class ChildProcess(Generic[Received]):
    """A running process and the channel to it.

    It leads a new session, so a terminal's Ctrl-C reaches only its parent, and ignores the signals that a service
    manager sends to all processes of a service. It ends by itself when the channel closes, however that comes about.
    Its standard output and error are one pipe, of which the last lines are kept; nothing that it prints can reach the
    channel.

    Args:
        module: The module that it runs; its one argument is the descriptor of its end of the channel.
        received: The union of the message types that it sends.

    Raises:
        OSError: If the process cannot be started.
    """

    def __init__(self, module: str, received: Any) -> None:
        ours, theirs = socket.socketpair()
        with theirs, blocked_signals():
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    # OpenMP's threads spin while they wait; beside a busy server that makes each step ten times longer.
                    env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            except BaseException:
                ours.close()
                raise
        process_groups.add(self._process.pid)
        self.channel = Channel[Received](ours, received)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._relay = threading.Thread(target=self._read_output, name="child-output", daemon=True)
        self._relay.start()
        threading.Thread(target=self._watch, name="child-watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def end(self) -> int:
        """Closes the channel and waits until the process, and what it started, has ended.

        Returns:
            The exit status; negative for a signal.
        """
        self.channel.close()
        try:
            status = self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._kill_group()
            status = self._process.wait()
        self._kill_group()  # children that still run
        process_groups.discard(self._process.pid)
        self._relay.join(1.0)
        self.channel.release()
        return status

    def output(self) -> str:
        """Returns the last lines that the process printed: for the log alone, since they may hold anything."""
        return "\n".join(self._tail)

    def last_words(self) -> str:
        """Returns the last line that the process printed, shortened."""
        return next((line[:300] for line in reversed(self._tail) if line.strip()), "")

    def forget(self) -> None:
        """Called in a forked child: gives up the copied channel without ending the parent's process."""
        self.channel.release()
        self._process.returncode = 0  # it is no child of this process

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                text = line.decode("utf-8", "replace").rstrip()
                self._tail.append(text)
                logger.debug("process %d: %s", self.pid, text)

    def _watch(self) -> None:
        """Closes the channel when the process has ended: a child of it may still hold a copy of its end."""
        self._process.wait()
        self.channel.close()


class EngineProcess(ChildProcess[FromEngine]):
    """A running engine process."""

    def __init__(self) -> None:
        super().__init__("abstractllm.providers.huggingface.worker", FromEngine)


def describe_exit(status: int) -> str:
    """Returns how a process ended, in words: `ended with status 1`, or `ended by signal 9` for the status -9."""
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
