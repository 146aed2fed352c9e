"""Standard output and standard error of this process, whose lines become log records.

C libraries, gRPC among them, write to the descriptors; Python's `print`, warnings and last words go to `sys.stdout`
and `sys.stderr`. Were these the pipe or terminal that the server was started with, each of them would wait for its
reader, on the event loop, too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import io
import logging
import os
import re
import sys
import threading
from typing import ClassVar

from abstractllm_server.telemetry.rate_limit import RateLimit

__all__ = ["capture_output"]

logger = logging.getLogger("abstractllm.output")

_LONGEST_LINE = 8192
_PIPE_BYTES = 1024 * 1024
_SEVERITY = re.compile(rb"^([IWEF])\d{4} \d")
"""The beginning of a line of gRPC's log: its severity, month and day."""
_PRIVATE = re.compile(rb"(?i)\b(authorization|grpc-message)\b([\"']?\s*[:=]\s*).*")
"""The token of a call, and the message of an error, which may repeat what a caller or an API wrote: gRPC writes both
with the other headers where it is told to trace them."""
_LEVELS = {b"I": logging.INFO, b"W": logging.WARNING, b"E": logging.ERROR, b"F": logging.CRITICAL}


def capture_output() -> int | None:
    """Turns what this process writes to standard output and standard error into log records, from now on.

    A line that does not say how severe it is becomes a warning. Whoever writes never waits: where lines come faster
    than they can be taken, C libraries lose some.

    Returns:
        A descriptor of what standard error was, for the log; None if there was none.
    """
    error = _duplicate(2)
    readable, writable = os.pipe()
    # Nobody waits, not even a library that keeps Python's lock while it writes.
    os.set_blocking(writable, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    _keep_last_words(error)
    for descriptor in (1, 2):
        os.dup2(writable, descriptor)
    os.close(writable)
    sys.stdout, sys.stderr = LogStream(1), LogStream(2)
    threading.Thread(target=_read, args=(readable,), name="output-capture", daemon=True).start()
    return error


def _duplicate(descriptor: int) -> int | None:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    except OSError:
        return None


def _keep_last_words(error: int | None) -> None:
    """Has Python's stack written to standard error itself if the process crashes, where that cannot wait.

    What is in the pipe then is lost, since nobody lives to read it.
    """
    if error is None:
        return
    with contextlib.suppress(OSError, ValueError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        faulthandler.enable(os.open(f"/proc/self/fd/{error}", flags))


def _read(readable: int) -> None:
    """Logs the lines that arrive in a pipe, for ever."""
    # Every stranger who connects can cause some of gRPC's, such as that a handshake failed.
    is_traced = os.environ.get("GRPC_TRACE") or os.environ.get("GRPC_VERBOSITY", "").lower() in ("debug", "info")
    limit = None if is_traced else RateLimit()
    rest = b""
    while data := os.read(readable, 65_536):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            with contextlib.suppress(Exception):  # the thread goes on, even without memory
                _log_limited(line, limit)


def _log_limited(line: bytes, limit: RateLimit | None) -> None:
    left_out = 0 if limit is None else limit.take()
    if left_out:
        logger.warning("%d lines were left out, since there were more than 20 a second", left_out)
    if left_out is not None:
        _log(line)


def _log(line: bytes) -> None:
    if line.strip():
        severity = _SEVERITY.match(line)
        line = _PRIVATE.sub(rb"\1\2(left out)", line[:_LONGEST_LINE])
        text = line.decode("utf-8", "replace").rstrip()
        logger.log(_LEVELS[severity[1]] if severity else logging.WARNING, "%s", text)


class LogStream(io.TextIOBase):
    """A text stream whose lines become log records.

    Args:
        descriptor: The descriptor whose place it takes.
    """

    encoding: ClassVar[str] = "utf-8"  # type: ignore[misc] # a property of the base class
    errors: ClassVar[str] = "backslashreplace"  # type: ignore[misc]

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._rest = ""

    def write(self, text: str) -> int:
        """Logs the lines that the text completes."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            _log(line[:_LONGEST_LINE].encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Does nothing: a line is logged when it is complete."""

    def writable(self) -> bool:
        """Returns True."""
        return True

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self._descriptor
