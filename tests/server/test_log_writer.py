"""The thread that writes the log: who logs never waits, what is dropped is counted and told."""

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from abstractllm.utils.log_lines import StructuredMessage, TextFormatter
from abstractllm_server.telemetry.log_writer import LogWriter, QueueHandler
from tests.waiting import wait_until

TOLD = re.compile(rb"WARNING abstractllm\.log (\d+) log records were dropped")


class Log:
    """A logger whose lines go through a writer to a pipe."""

    def __init__(self) -> None:
        self.readable, self.writable = os.pipe()
        self.writer = LogWriter(self.writable, TextFormatter())
        self.logger = logging.Logger("abstractllm.test", logging.DEBUG)  # noqa: LOG001 # of this test alone
        self.logger.addHandler(QueueHandler(self.writer))

    def lines(self) -> list[bytes]:
        """Reads all that is written until a last record of this call's own."""
        self.logger.error("the end")
        data = b""
        while b" the end\n" not in data:
            data += os.read(self.readable, 1 << 20)
        return data.splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.writer.flush(5)
    os.close(log.readable)


def test_nobody_who_logs_waits_for_a_reader(log: Log) -> None:
    began = time.monotonic()
    for number in range(20_000):
        log.logger.info("line %d %s", number, "x" * 1000)
    assert time.monotonic() - began < 20
    assert log.writer.dropped > 10_000
    assert not log.writer.flush(30)
    assert time.monotonic() - began < 25


def test_dropped_records_are_told_once_there_is_a_reader_again(log: Log) -> None:
    for number in range(20_000):
        log.logger.info("line %d %s", number, "x" * 1000)
    dropped = log.writer.dropped
    lines = log.lines()
    told = [int(match[1]) for line in lines if (match := TOLD.search(line))]
    assert told == [dropped]
    assert sum(b" line " in line for line in lines) + dropped == 20_000


def test_records_keep_their_order_and_none_is_lost_while_there_is_room(log: Log) -> None:
    threading.Thread(target=lambda: [log.logger.info("line %d", number) for number in range(2_000)]).start()
    numbers = []
    while len(numbers) < 2_000:
        numbers += [int(number) for number in re.findall(rb"line (\d+)\n", os.read(log.readable, 1 << 20))]
    assert numbers == list(range(2_000))


def test_warnings_and_the_audit_have_room_when_others_have_not(log: Log) -> None:
    while not log.writer.dropped:
        log.logger.info("%s", "x" * 1000)
    before = log.writer.dropped
    log.logger.warning("a warning")
    audit = logging.Logger("abstractllm.audit")  # noqa: LOG001 # of this test alone
    audit.addHandler(log.logger.handlers[0])
    audit.info("an admin call")
    log.logger.info("nothing of note")
    assert log.writer.dropped == before + 1
    lines = log.lines()
    assert any(b" a warning" in line for line in lines) and any(b" an admin call" in line for line in lines)


def test_what_is_logged_is_as_it_was_then(log: Log) -> None:
    values = ["before"]
    log.logger.info("values %s", values)
    values[0] = "after"
    assert b"values ['before']" in log.lines()[0]


def test_traceback_is_written_without_holding_its_frames(log: Log) -> None:
    class Value:
        pass

    import weakref

    def fail() -> weakref.ref[Value]:
        value = Value()
        try:
            raise ValueError("no good")
        except ValueError:
            log.logger.exception("failed")
        return weakref.ref(value)

    held = fail()
    assert held() is None
    lines = log.lines()
    assert lines[0].endswith(b" failed")
    assert lines[-2] == b"  | ValueError: no good"


def test_exception_that_repeats_a_whole_request_is_cut_and_not_lost(log: Log) -> None:
    try:
        raise ValueError("forged\n2026-01-01T00:00:00.000Z INFO " + "x" * 20_000_000)
    except ValueError:
        log.logger.exception("the call failed")
    lines = log.lines()
    assert lines[0].endswith(b"ERROR abstractllm.test the call failed")
    assert any(b"test_exception_that_repeats" in line for line in lines)
    assert all(line.startswith(b"  | ") for line in lines[1:-1])
    assert sum(map(len, lines)) < 100_000
    assert log.writer.dropped == 0


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")

    __repr__ = __str__


@pytest.mark.parametrize(("message", "values"), [("%d", ("text",)), ("%s", (Unprintable(),)), ("%s %s", (1,))])
def test_record_that_cannot_be_formatted_is_told_of_and_others_go_on(log: Log, message: str, values: tuple) -> None:
    log.logger.info(message, *values)
    log.logger.info(StructuredMessage("call", {"request_id": Unprintable()}))
    log.logger.info("next")
    lines = log.lines()
    assert b"not formatted" in lines[0]
    assert b"could not be written" in lines[1]
    assert lines[2].endswith(b" next")


class Hostile(Mapping[str, str]):
    """Labels that cannot be counted, read or shown."""

    def __getitem__(self, key: str) -> str:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise MemoryError

    def __len__(self) -> int:
        raise RuntimeError


def test_nothing_that_goes_wrong_with_a_record_reaches_who_logs(log: Log) -> None:
    def recurse(depth: int) -> None:
        try:
            log.logger.info("deep %s", "x")
        finally:
            recurse(depth + 1)

    log.logger.info(StructuredMessage("call", {"labels": Hostile()}))
    assert log.writer.dropped == 1
    with pytest.raises(RecursionError):
        recurse(0)
    log.logger.info("next")
    lines = log.lines()
    assert lines[-2].endswith(b" next") or b"dropped" in lines[-2]
    assert any(line.endswith(b" next") for line in lines)


def test_formatter_that_fails_always_does_not_end_the_thread() -> None:
    class Failing(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise MemoryError

    readable, writable = os.pipe()
    writer = LogWriter(writable, Failing())
    writer.put(logging.LogRecord("a", logging.INFO, "", 0, "text", None, None), 10)
    writer.put("plain", 10)
    assert writer.flush(30)
    writer.put("another", 10)
    assert writer.flush(30)
    assert writer.dropped >= 1
    for descriptor in (readable, writable):
        os.close(descriptor)


def test_line_that_a_full_disk_has_cut_off_is_not_the_beginning_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    write, room = os.write, [30]

    def onto_full_disk(descriptor: int, data: bytes) -> int:
        if descriptor != log.writable or room[0] is None:
            return write(descriptor, data)
        if not room[0]:
            raise OSError(errno.ENOSPC, "no space left")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("abstractllm_server.telemetry.log_writer.os.write", onto_full_disk)
    log.logger.info("%s", "x" * 100)
    wait_until(lambda: log.writer.dropped == 1)
    room[0] = None
    lines = log.lines()
    assert len(lines[0]) == 30
    assert all(line.startswith(b"20") for line in lines)
    assert any(line.endswith(b" the end") for line in lines)
    os.close(log.readable)
    os.close(log.writable)


def test_reader_who_has_gone_is_noticed_by_the_count_alone() -> None:
    log = Log()
    os.close(log.readable)
    for _ in range(100):
        log.logger.info("nobody reads this")
    wait_until(lambda: log.writer.dropped == 100)
    os.close(log.writable)
