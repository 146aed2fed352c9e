"""Background tasks and threads that fail are logged, counted and started again."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from abstractllm_server.lifecycle import supervision
from abstractllm_server.lifecycle.supervision import Supervisor
from tests.waiting import until


@pytest.fixture
async def supervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(supervision, "_FIRST_PAUSE", 0.001)
    running = Supervisor()
    yield running
    running.stop()


async def _cancelled_within() -> None:
    inner = asyncio.get_running_loop().create_future()
    inner.cancel()
    await inner


async def _fails() -> None:
    raise RuntimeError("of its own")


async def _exits() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("end", [_fails, _exits, _cancelled_within])
async def test_task_that_fails_is_told_counted_and_started_again(
    supervisor: Supervisor, end: object, caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            await end()  # type: ignore[operator]
        await asyncio.sleep(3000)

    supervisor.run("work", work)
    await until(lambda: starts == 4)
    assert supervisor.restarts["work"] == 3
    assert caplog.text.count("the background task work failed and starts again") == 3
    (measurement,) = supervisor.measurements()
    assert (measurement.value, measurement.attributes) == (3, {"task": "work"})


async def test_task_that_returns_or_is_stopped_is_over(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[str] = []

    async def once() -> None:
        starts.append("once")

    async def long() -> None:
        starts.append("long")
        await asyncio.sleep(3000)

    supervisor.run("once", once)
    supervisor.run("long", long)
    await asyncio.sleep(0.05)
    supervisor.stop()
    await asyncio.sleep(0.05)
    assert starts == ["once", "long"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_thread_that_fails_is_started_again(supervisor: Supervisor) -> None:
    starts = 0
    is_over = threading.Event()

    def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise SystemExit(1)
        is_over.set()

    supervisor.run_thread("work", work)
    await until(is_over.is_set)
    assert (starts, supervisor.restarts["work"]) == (3, 2)


@pytest.mark.parametrize(
    ("name", "kind"), [("relay-7", "relay"), ("Thread-12 (work)", "Thread (work)"), ("pool-3_1", "pool")]
)
async def test_thread_that_nobody_supervises_is_told_of_when_it_fails(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    supervisor.watch_other_threads()

    def work() -> None:
        raise RuntimeError("of its own")

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    assert supervisor.restarts == {kind: 1}
    assert f"the thread {kind} failed and is gone" in caplog.text
