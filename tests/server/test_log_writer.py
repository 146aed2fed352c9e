"""The thread that writes the log: who logs never waits, what is dropped is counted and told."""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator

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


def test_reader_who_has_gone_is_noticed_by_the_count_alone() -> None:
    log = Log()
    os.close(log.readable)
    for _ in range(100):
        log.logger.info("nobody reads this")
    wait_until(lambda: log.writer.dropped == 100)
    os.close(log.writable)
