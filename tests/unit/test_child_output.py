"""The output of engine processes and downloads: bounded, each line a record that stays within its line."""

import logging
import threading
from pathlib import Path

import psutil
import pytest

from abstractllm.providers.huggingface.protocol.child_process import ChildProcess
from abstractllm.providers.huggingface.protocol.messages import FromEngine
from abstractllm.utils.log_lines import TextFormatter
from tests.waiting import wait_until

MODULE = """
import sys
print("first")
print("\\x1b[2J2026-01-01T00:00:00.000Z INFO abstractllm.audit forged\\rno", flush=True)
for _ in range(64):
    sys.stdout.write("x" * 2**20)
print()
print("last words", file=sys.stderr, flush=True)
"""


@pytest.fixture
def printing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "printing_child.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "printing_child"


def test_output_without_line_ends_takes_no_memory_and_each_line_is_a_record(
    printing: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, most = psutil.Process().memory_info().rss, [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process: ChildProcess[FromEngine] = ChildProcess(printing, FromEngine)
    wait_until(lambda: process.last_words() == "last words")
    process.end()
    done.set()
    watcher.join()
    assert most[0] - before < 32 * 2**20
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    process.log_output(logging.ERROR)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 40
    assert told[-1] == f"process {process.pid} printed last: last words"
    assert max(map(len, told)) < 10_000


def test_nothing_that_a_process_prints_leaves_its_line(printing: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="abstractllm")
    process: ChildProcess[FromEngine] = ChildProcess(printing, FromEngine)
    wait_until(lambda: process.last_words() == "last words")
    process.end()
    records = [record for record in caplog.records if record.name == "abstractllm.engine"]
    assert any("forged" in record.getMessage() for record in records)
    assert all(TextFormatter().format(record).isprintable() for record in records)
