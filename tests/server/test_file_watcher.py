"""Files that change, vanish and come back: every good one is taken over, every bad one told, and nothing ends that."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from abstractllm.errors import ConfigurationError
from abstractllm_server.security import file_watcher
from abstractllm_server.security.file_watcher import FileWatcher
from tests.waiting import until


class Texts:
    """A source of two files that must be equal; `read` is what was read last."""

    def __init__(self, folder: Path) -> None:
        self.paths = (folder / "one", folder / "two")
        self.write("first")
        self.read = "first"
        self.reads = 0
        self.obstacle: BaseException | None = None

    def write(self, text: str) -> None:
        for path in self.paths:
            path.write_text(text)

    def reload(self) -> None:
        self.reads += 1
        if self.obstacle:
            raise self.obstacle
        one, two = (path.read_text() for path in self.paths)  # raises OSError if one is missing
        if one != two or one.startswith("bad"):
            raise ConfigurationError(f"they hold {one} and {two}")
        self.read = one


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[FileWatcher, Texts]]:
    monkeypatch.setattr(file_watcher, "_INTERVAL", 0.02)
    monkeypatch.setattr(file_watcher, "_SETTLING", 0.02)
    monkeypatch.setattr(file_watcher, "_RETRY_INTERVAL", 0.1)
    texts = Texts(tmp_path)
    watcher = FileWatcher(texts.paths)
    task = asyncio.create_task(watcher.run(lambda: {"texts": texts}))
    yield watcher, texts
    assert not task.done()
    task.cancel()


def vanish(texts: Texts) -> None:
    texts.paths[0].unlink()


def become_a_folder(texts: Texts) -> None:
    texts.paths[0].unlink()
    texts.paths[0].mkdir()


def become_a_pipe(texts: Texts) -> None:
    texts.paths[0].unlink()
    os.mkfifo(texts.paths[0])
    texts.obstacle = OSError("not a file")


def hold_no_text(texts: Texts) -> None:
    texts.paths[0].write_bytes(b"\xff")  # UnicodeDecodeError


def be_refused(texts: Texts) -> None:
    texts.write("bad")


def fail_in_a_way_of_its_own(texts: Texts) -> None:
    texts.obstacle = RuntimeError("of its own")
    texts.write("unread")


FAULTS = (vanish, become_a_folder, become_a_pipe, hold_no_text, be_refused, fail_in_a_way_of_its_own)


@pytest.mark.parametrize("break_it", FAULTS, ids=lambda fault: fault.__name__)
async def test_after_any_fault_the_next_good_file_is_taken_over(
    watched: tuple[FileWatcher, Texts], break_it: Callable[[Texts], None], caplog: pytest.LogCaptureFixture
) -> None:
    watcher, texts = watched
    break_it(texts)
    await until(lambda: watcher.failed_reloads == 1)
    assert texts.read == "first"
    assert "the earlier one stays in force" in caplog.text
    texts.obstacle = None
    path = texts.paths[0]
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    texts.write("second")
    await until(lambda: texts.read == "second")


async def test_every_one_of_twenty_rotations_is_taken_over_or_told(
    watched: tuple[FileWatcher, Texts], caplog: pytest.LogCaptureFixture
) -> None:
    watcher, texts = watched
    for number in range(20):
        failures = watcher.failed_reloads
        vanish(texts)
        await until(lambda before=failures: watcher.failed_reloads == before + 1)  # type: ignore[misc]
        texts.write(text := f"{'bad' if number % 2 else 'good'} {number}")
        if number % 2:
            await until(lambda before=failures: watcher.failed_reloads == before + 2)  # type: ignore[misc]
            assert f"they hold {text}" in caplog.text
        else:
            await until(lambda expected=text: texts.read == expected)  # type: ignore[misc]
    counts = {m.attributes["outcome"]: m.value for m in watcher.measurements()}
    assert counts == {"failure": 30, "success": 10}


async def test_change_that_keeps_time_and_size_is_seen(watched: tuple[FileWatcher, Texts]) -> None:
    _, texts = watched
    for path in texts.paths:
        before = path.stat()
        path.write_text("other")
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await until(lambda: texts.read == "other")


async def test_what_failed_is_tried_again_in_silence_though_the_files_stay(
    watched: tuple[FileWatcher, Texts], caplog: pytest.LogCaptureFixture
) -> None:
    watcher, texts = watched
    texts.obstacle = OSError("too many open files")
    texts.write("second")
    await until(lambda: texts.reads >= 4)
    assert watcher.failed_reloads == 1
    assert caplog.text.count("too many open files") == 1
    texts.obstacle = None
    await until(lambda: texts.read == "second")


async def test_a_look_that_fails_is_not_the_last(
    watched: tuple[FileWatcher, Texts], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, texts = watched
    with monkeypatch.context() as broken:
        broken.setattr(file_watcher, "_versions", lambda paths: 1 / 0)
        await until(lambda: "cannot be looked at" in caplog.text)
    texts.write("second")
    await until(lambda: texts.read == "second")
