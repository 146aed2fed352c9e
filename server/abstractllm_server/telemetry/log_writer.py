"""The thread that writes the log: whoever logs never waits for the reader of standard error."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import queue
import select
import threading
import time
import traceback

from abstractllm.utils.log_lines import MAX_CHARACTERS, StructuredMessage, shortened

__all__ = ["AUDIT_LOGGER", "LogWriter", "QueueHandler"]

AUDIT_LOGGER = "abstractllm.audit"
FLUSH_SECONDS = 0.3
"""Seconds that the exit waits for the log."""

_MAX_BYTES = 8 * 1024 * 1024
"""Bytes of records that wait, about."""
_RESERVED = 4
"""The part of the room that is kept for warnings, errors and the audit: one in this many."""
_OVERHEAD = 1024
"""Bytes that a record takes beside its text."""
_TRACE_BYTES = 8192
"""Bytes of a traceback's frames, about."""
_BATCH_BYTES = 65_536
_NOTE_INTERVAL = 1.0
"""Seconds between two lines that tell how many records were dropped."""
_STUCK_SECONDS = 0.25
"""Seconds after which a write waits for a reader who does not read."""

Item = logging.LogRecord | str | threading.Event
"""A record, a line that is written as it is, or an event that is set once all before it is written."""


class LogWriter:
    """A bounded queue of log records, and a daemon thread that writes them to a descriptor.

    A record that finds no room is dropped and counted; as soon as lines can be written again, one tells how many.

    Args:
        descriptor: The file, pipe or terminal that is written to; None writes nowhere.
        formatter: Makes a line of a record.
    """

    def __init__(self, descriptor: int | None, formatter: logging.Formatter) -> None:
        self._descriptor = descriptor
        self._formatter = formatter
        self._queue: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
        # A record may be put while another is being put in the same thread, by a finalizer.
        self._lock = threading.RLock()
        self._waiting_bytes = 0
        self._dropped = 0
        self._told = 0
        self._told_at = 0.0
        self._write_began: float | None = None
        self._is_torn = False
        self._poll = select.poll()
        if descriptor is not None:
            self._poll.register(descriptor, select.POLLOUT)
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """The number of records that were dropped, ever."""
        return self._dropped

    def put(self, item: logging.LogRecord | str, size: int, *, is_important: bool = False) -> None:
        """Queues a record or a line; drops it if there is no room. Never waits.

        Args:
            item: The record, with nothing in it that may change; or a line without its end.
            size: The bytes of its text, about.
            is_important: True if it may use the room that is kept for such records.
        """
        size += _OVERHEAD
        room = _MAX_BYTES if is_important else _MAX_BYTES - _MAX_BYTES // _RESERVED
        with self._lock:
            if self._waiting_bytes + size > room:
                self._dropped += 1
                return
            self._waiting_bytes += size
        self._queue.put((size, item))

    def note_dropped(self) -> None:
        """Counts a record that could not be queued."""
        with self._lock:
            self._dropped += 1

    def flush(self, timeout: float) -> bool:
        """Waits until everything queued so far is written; not at all for a reader who does not read.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            True if all is written.
        """
        written = threading.Event()
        self._queue.put((0, written))
        deadline = time.monotonic() + timeout
        while not written.wait(0.02):
            now, began = time.monotonic(), self._write_began
            if now > deadline or (began is not None and now - began > _STUCK_SECONDS):
                return written.is_set()
        return True

    def _run(self) -> None:
        while True:
            batch: list[tuple[int, Item]] = []
            is_written = False
            # Whatever a record holds, and even without memory, the thread goes on.
            with contextlib.suppress(Exception):
                self._take_next(batch)
                is_written = self._write_lines([self._line(item) for _, item in batch])
            records = sum(not isinstance(item, threading.Event) for _, item in batch)
            with self._lock:
                self._waiting_bytes -= sum(size for size, _ in batch)
                if not is_written:
                    self._dropped += records
            for _, item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _write_lines(self, lines: list[str]) -> bool:
        """Writes lines, and one about dropped records where there are any to tell of."""
        untold = self._untold()
        if untold:
            lines.append(self._note(untold))
        text = "".join(f"{line}\n" for line in lines if line)
        is_written = self._write(text.encode("utf-8", "backslashreplace"))
        if is_written and untold:
            self._told += untold
            self._told_at = time.monotonic()
        return is_written

    def _take_next(self, batch: list[tuple[int, Item]]) -> None:
        """Waits for what is to be written next, and adds it to a batch; nothing if there are only dropped records."""
        with contextlib.suppress(queue.Empty):
            batch.append(self._queue.get(timeout=_NOTE_INTERVAL if self._dropped > self._told else None))
            size = batch[0][0]
            while size < _BATCH_BYTES:
                batch.append(self._queue.get_nowait())
                size += batch[-1][0]

    def _line(self, item: Item) -> str:
        if isinstance(item, threading.Event):
            return ""
        if isinstance(item, str):
            return item
        try:
            return self._formatter.format(item)
        except Exception as error:
            return self._own_line(item.levelno, f"a record of {item.name} could not be written: {type(error).__name__}")

    def _untold(self) -> int:
        """Returns how many records were dropped that no line tells of; 0 if the last such line is too recent."""
        return self._dropped - self._told if time.monotonic() - self._told_at >= _NOTE_INTERVAL else 0

    def _note(self, dropped: int) -> str:
        text = f"{dropped} log records were dropped, since they could not be written fast enough"
        return self._own_line(logging.WARNING, text)

    def _own_line(self, level: int, text: str) -> str:
        return self._formatter.format(logging.LogRecord("abstractllm.log", level, __file__, 0, text, None, None))

    def _write(self, data: bytes) -> bool:
        """Writes bytes, and waits for their reader as long as it takes; returns False if there is none any more."""
        if self._descriptor is None or not data:
            return True
        # A line that was cut off, by a disk that is full, must not be the beginning of the next one.
        rest = memoryview(b"\n" + data if self._is_torn else data)
        self._write_began = time.monotonic()
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                    self._is_torn = bool(rest)
                except BlockingIOError:
                    self._poll.poll()
            return True
        except OSError:
            return False
        finally:
            self._write_began = None


class QueueHandler(logging.Handler):
    """Hands every record to a writer, with its message as text: what a record refers to may change later.

    Args:
        writer: The writer.
    """

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a record; drops it where there is no room. Never raises: whoever logs does other work."""
        try:
            copied, size = _detached(record)
        except Exception:  # such as one about too deep a recursion
            self.writer.note_dropped()
            return
        is_important = record.levelno >= logging.WARNING or record.name == AUDIT_LOGGER
        self.writer.put(copied, size, is_important=is_important)

    def flush(self) -> None:
        """Waits a moment for what is queued; Python calls it when it exits."""
        self.writer.flush(FLUSH_SECONDS)


def _detached(record: logging.LogRecord) -> tuple[logging.LogRecord, int]:
    """Returns a copy of a record without anything that may change or is large, and the bytes of its text, about."""
    copied = copy.copy(record)
    if isinstance(record.msg, StructuredMessage):
        size = record.msg.size
    else:
        copied.msg = _message(record)
        size = len(copied.msg)
    copied.args = copied.exc_info = copied.exc_text = None
    if record.exc_info and record.exc_info[0] is not None:
        # Without its frames and without reading the sources, which the writer does.
        trace = traceback.TracebackException(*record.exc_info, lookup_lines=False, compact=True)
        size += _TRACE_BYTES
        if (length := sum(map(len, trace.format_exception_only()))) > MAX_CHARACTERS:
            # An exception may say what it failed at, as a whole: it must not wait so, nor be dropped for its size.
            copied.exc_text = shortened("".join(trace.format()))
            size += len(copied.exc_text)
        else:
            copied.__dict__["trace"] = trace
            size += length
    return copied, size


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception as error:  # arguments that do not fit, or do not print
        message = f"{record.msg!s:.1000} (not formatted: {type(error).__name__})"
    return shortened(message)
