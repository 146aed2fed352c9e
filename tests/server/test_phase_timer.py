"""Time limits that a held-up event loop does not shorten for others."""

import asyncio
import time

from abstractllm_server.transport.phase_timer import PhaseTimer
from tests.waiting import until


async def test_what_came_while_the_loop_was_held_up_is_seen_before_anybody_is_late() -> None:
    expired: list[str] = []
    timer = PhaseTimer[str](0.2, expired.append)
    loop = asyncio.get_running_loop()

    async def message() -> None:
        for _ in range(3):  # as from gRPC's thread to the task that waits
            await asyncio.sleep(0)
        timer.stop("on time")

    timer.start("on time")
    timer.start("late")
    loop.call_soon_threadsafe(lambda: loop.call_later(0.05, lambda: asyncio.ensure_future(message())))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 # that is what holds the loop up
    await until(lambda: expired)
    assert expired == ["late"]


async def test_items_are_late_in_time_though_the_loop_is_always_held_up() -> None:
    expired: list[str] = []
    timer = PhaseTimer[str](0.1, expired.append)
    timer.start("late")
    for _ in range(4):
        await asyncio.sleep(0)
        time.sleep(0.25)  # noqa: ASYNC251
        await asyncio.sleep(0.01)
    assert expired == ["late"]
