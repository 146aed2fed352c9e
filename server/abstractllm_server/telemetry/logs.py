"""The server's log: set up once for the process, written by a thread of its own."""

from __future__ import annotations

import logging

from abstractllm.utils.log_lines import JsonFormatter, TextFormatter, escape
from abstractllm_server.telemetry.log_writer import AUDIT_LOGGER, FLUSH_SECONDS, LogWriter, QueueHandler
from abstractllm_server.telemetry.output_capture import capture_output

__all__ = ["dropped_records", "flush_logs", "say", "set_log_level", "start_logs"]

_writer: LogWriter | None = None


def start_logs(log_level: str, log_format: str) -> None:
    """Takes over standard output and standard error, and writes the log to what standard error was.

    Of other packages only warnings and errors are written. The audit is written at every level.

    Args:
        log_level: `debug`, `info`, `warning` or `error`.
        log_format: `text` or `json`.
    """
    global _writer
    _writer = LogWriter(capture_output(), JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    handler = QueueHandler(_writer)
    handler.addFilter(_is_wanted)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    set_log_level(log_level)
    logging.getLogger(AUDIT_LOGGER).setLevel(logging.INFO)


def set_log_level(log_level: str) -> None:
    """Sets the level of the server's own records: `debug`, `info`, `warning` or `error`."""
    logging.getLogger("abstractllm").setLevel(log_level.upper())


_OF_CALLERS = ("opentelemetry.trace.", "opentelemetry.baggage.", "opentelemetry.propagators.")
"""Loggers that tell of malformed headers of traces, which every stranger can send: these headers do not count."""


def _is_wanted(record: logging.LogRecord) -> bool:
    """Leaves out what other packages tell below warnings: SDKs that are told to debug write keys and content."""
    if record.name == "opentelemetry.util.re":  # it repeats the value, which holds credentials
        record.msg, record.args = "OTEL_EXPORTER_OTLP_HEADERS is malformed: it must be name=value,name=value", None
    if record.name.startswith(_OF_CALLERS) and record.levelno < logging.ERROR:
        return False
    return record.levelno >= logging.WARNING or record.name.startswith("abstractllm")


def say(text: str) -> None:
    """Writes a line to standard error that is no log record, such as the reason why the server cannot start."""
    line = "\n".join(escape(part) for part in text.split("\n"))
    if _writer is None:
        raise RuntimeError("the log has not been started")
    _writer.put(line, len(line), is_important=True)


def flush_logs(timeout: float = FLUSH_SECONDS) -> bool:
    """Waits until the log is written, for a moment at most: to be called before the process is ended by force.

    Returns:
        True if all is written.
    """
    return _writer is None or _writer.flush(timeout)


def dropped_records() -> int:
    """Returns how many log records were dropped since nobody read standard error."""
    return 0 if _writer is None else _writer.dropped
