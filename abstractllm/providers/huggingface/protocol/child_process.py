"""The operating system processes of engines and of downloads, seen from the provider."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from abstractllm._core.process_groups import process_groups
from abstractllm.providers.huggingface.protocol.channel import Channel
from abstractllm.providers.huggingface.protocol.launcher import launch_command
from abstractllm.providers.huggingface.protocol.messages import FromEngine
from abstractllm.providers.huggingface.protocol.signals import blocked_signals

__all__ = ["ChildProcess", "EngineProcess", "describe_exit"]

logger = logging.getLogger("abstractllm.engine")

Received = TypeVar("Received")

_TAIL_LINES = 40
_LONGEST_LINE = 8192
"""Bytes of a line; a longer one is taken for several."""
_END_TIMEOUT = 0.6
"""Seconds that a process has to end after its channel was closed, which takes it a moment; then it is killed. A server
that stops has a second for that."""


_REAPING_SECONDS = 0.2
"""Seconds that processes may take to end that were killed."""


class ChildProcess(Generic[Received]):
    """A running process and the channel to it.

    It leads a new session, so a terminal's Ctrl-C reaches only its parent, and ignores the signals that a service
    manager sends to all processes of a service. It ends by itself when the channel closes, however that comes about,
    and with its parent even if it is stopped. Its standard output and error are one pipe, of which the last lines are
    kept; nothing that it prints can reach the channel.

    Args:
        module: The module that it runs; its one argument is the descriptor of its end of the channel.
        received: The union of the message types that it sends.

    Raises:
        OSError: If the process cannot be started.
    """

    def __init__(self, module: str, received: Any) -> None:
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._is_set_up = threading.Event()
        ours, theirs = socket.socketpair()
        started: Future[subprocess.Popen[bytes]] = Future()
        try:
            threading.Thread(target=self._run, args=(module, theirs, started), name="child-watch", daemon=True).start()
            self._process = started.result()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        process_groups.add(self._process.pid)
        self.channel = Channel[Received](ours, received)
        self._relay = threading.Thread(target=self._read_output, name="child-output", daemon=True)
        self._relay.start()
        self._is_set_up.set()

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
            self.kill()
            status = self._process.wait()
        self.kill()  # children that still run
        self._reap_group()
        process_groups.discard(self._process.pid)
        self._relay.join(1.0)
        self.channel.release()
        return status

    def log_output(self, level: int) -> None:
        """Logs the last lines that the process printed: for the log alone, since they may hold anything."""
        for line in tuple(self._tail):
            logger.log(level, "process %d printed last: %s", self.pid, line)

    def last_words(self) -> str:
        """Returns the last line that the process printed, shortened."""
        return next((line[:300] for line in reversed(self._tail) if line.strip()), "")

    def forget(self) -> None:
        """Called in a forked child: gives up the copied channel without ending the parent's process."""
        self.channel.release()
        self._process.returncode = 0  # it is no child of this process

    def kill(self) -> None:
        """Sends SIGKILL to the process and to what it has started; one that is stopped ends, too."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap_group(self) -> None:
        """Takes in the ends of what the process has started, if this process inherits that: as a container's first."""
        end = time.monotonic() + _REAPING_SECONDS
        with contextlib.suppress(ChildProcessError):  # there is nothing, or nothing any more
            while time.monotonic() < end:
                pid, _ = os.waitpid(-self._process.pid, os.WNOHANG)
                if not pid:
                    time.sleep(0.01)

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            # One that prints without line ends must not fill this process's memory.
            while line := output.readline(_LONGEST_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                self._tail.append(text)
                logger.debug("process %d: %s", self.pid, text)

    def _run(self, module: str, channel: socket.socket, started: Future[subprocess.Popen[bytes]]) -> None:
        """Starts the process, waits for its end, and closes the channel, of which a child of it may still hold a copy.

        A process is ended by the kernel with the thread that has started it: so that thread waits for it.
        """
        try:
            with channel, blocked_signals():
                process = subprocess.Popen(
                    launch_command(module, str(channel.fileno()), at_parents_end=signal.SIGCONT),
                    pass_fds=(channel.fileno(),),
                    start_new_session=True,
                    # OpenMP's threads spin while they wait; beside a busy server that makes each step ten times longer.
                    env={"OMP_WAIT_POLICY": "PASSIVE"} | os.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(process)
        process.wait()
        self._is_set_up.wait()
        self.channel.close()


class EngineProcess(ChildProcess[FromEngine]):
    """A running engine process."""

    def __init__(self) -> None:
        super().__init__("abstractllm.providers.huggingface.worker", FromEngine)


def describe_exit(status: int) -> str:
    """Returns how a process ended, in words: `ended with status 1`, or `ended by signal 9` for the status -9."""
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
