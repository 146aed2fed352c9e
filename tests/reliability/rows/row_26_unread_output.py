"""Row 26: a standard output and error that nobody reads.

Pass mark: with both as pipes that are never read, and the log at debug, 10,000 calls are answered, liveness answers,
and SIGTERM ends the process within the grace and one second. The same where the reader is gone (a closed pipe) and
where the disk is full.
Load: 10,000 calls, 100 at a time; two thousand for each of the others.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.reliability.calls import End, Stub, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, serving

_GRACE = 2.0


async def measure(setting: Setting) -> Figures:
    """Calls a server whose log goes nowhere."""
    figures = setting.figures()
    calls = setting.load(10_000, 1_500)
    read, write = os.pipe()
    try:
        async with serving(
            setting.folder / "unread", log_level="debug", grace=_GRACE, outputs=(write, write)
        ) as server:
            os.close(write)
            write = -1
            await _call(figures, server, "unread", calls)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    read, write = os.pipe()
    os.close(read)
    async with serving(setting.folder / "gone", log_level="debug", grace=_GRACE, outputs=(write, write)) as server:
        os.close(write)
        await _call(figures, server, "reader gone", calls // 5)
    with Path("/dev/full").open("wb") as full:
        async with serving(setting.folder / "full", log_level="debug", grace=_GRACE, outputs=(full, full)) as server:
            await _call(figures, server, "disk full", calls // 5)
    return figures


async def _call(figures: Figures, server: ServerProcess, name: str, calls: int) -> None:
    left, ends = calls, list[End]()

    async def work() -> None:
        nonlocal left
        # A server that hangs would hang for every call; a few tell it.
        while left and sum(end.code != "OK" for end in ends) < 20:
            left -= 1
            ends.append(await unary(stub.Generate(request(), timeout=10)))

    async with server.channel() as channel:
        stub = Stub(channel)
        await asyncio.gather(*(work() for _ in range(100)))
    figures.equal(f"{name}: ends", tally(ends), {"OK": calls})
    figures.holds(f"{name}: liveness", await server.is_healthy("liveness"))
    figures.at_most(f"{name}: exit after SIGTERM", await server.ends(timeout=10), _GRACE + 1, "s")


ROW = Row(
    numbers=(26,),
    title="stderr and stdout that nobody reads, log at debug, 10,000 calls; a reader that is gone; a full disk",
    pass_mark="all answered; SIGTERM exits within grace + 1 s",
    measure=measure,
    quick=True,
)
