"""Rows 4 and 28: SIGTERM, and the signals that must not end a server.

Pass mark: with 50 calls running, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT and SIGPIPE lose none of them. SIGTERM to the
process, and to its whole group, lets those that can end do so; the others end UNAVAILABLE with RetryInfo and the
number of tokens that was sent; the process has ended within the grace and one second, with status 0 and nothing left:
no child, no socket.
Load: 50 calls, half scripted and half of a real engine, a grace of two seconds; three servers.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.reliability.calls import DEMO, ENDLESS, End, Stub, request, streamed, tally
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, descendants_left, echo, serving

_GRACE = 2.0
_CALLS = 50
_HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGPIPE)


async def measure(setting: Setting) -> Figures:
    """Sends each signal to a server with calls."""
    figures = setting.figures()
    llms = echo() | ({"local": DEMO} if setting.full else {})
    groups = [(False, "to the process"), (True, "to the group")]
    for group, name in groups:
        folder = setting.folder / name.replace(" ", "-")
        async with serving(folder, llms, listen=f"unix://{folder}/s.sock", grace=_GRACE) as server:
            if setting.full:
                async with server.channel() as channel:
                    await Stub(channel).Generate(request(llm="local", max_tokens=2), timeout=90)
            if not group:
                await _harmless(figures, server)
            if server.process.poll() is None:
                await _drain(figures, server, f"SIGTERM {name}", setting, group=group)
    return figures


async def _harmless(figures: Figures, server: ServerProcess) -> None:
    script = [{"text": "word "}, {"delay": 3}, {"text": "end"}]
    async with server.channel() as channel:
        calls, begun = _start(channel, _CALLS, script)
        await begun
        for number in _HARMLESS:
            if server.process.poll() is None:
                server.process.send_signal(number)
            await asyncio.sleep(0.2)
        ends = await asyncio.gather(*calls)
    figures.equal("ends after SIGHUP, USR1, USR2, QUIT, PIPE", tally(ends), {"OK": _CALLS})
    figures.equal("status of the process after them", server.process.poll(), None)


async def _drain(figures: Figures, server: ServerProcess, name: str, setting: Setting, *, group: bool) -> None:
    children = server.children
    short = [{"text": "one two "}, {"delay": 1}, {"text": "three"}]
    long = [{"text": "word"}, {"delay": 0.1}] * 1000
    async with server.channel() as channel:
        local = 25 if setting.full else 0
        ending, begun = _start(channel, 10, short)
        endless, also_begun = _start(channel, 40 - local, long)
        engine, engine_begun = _start(channel, local, None)
        await asyncio.gather(begun, also_begun, engine_begun)
        began = time.monotonic()
        seconds = asyncio.create_task(server.ends(signal.SIGTERM, group=group))
        ended = await asyncio.gather(*ending)
        await asyncio.wait([*endless, *engine], return_when=asyncio.FIRST_COMPLETED)
        first_cut = time.monotonic() - began
        cut = await asyncio.gather(*endless, *engine)
        took = await seconds
    figures.equal(f"{name}: calls that can end", tally(ended), {"OK": 10})
    figures.equal(f"{name}: the others", tally(cut), {"UNAVAILABLE SHUTTING_DOWN": 40})
    figures.at_least(f"{name}: the first of them cut after", first_cut, _GRACE - 0.2, "s")
    figures.equal(f"{name}: without RetryInfo", sum(end.retry_after is None for end in cut), 0)
    wrong = [end for end in cut if not _tells_tokens(end)]
    figures.equal(f"{name}: without the tokens that were sent", len(wrong), 0)
    figures.at_most(f"{name}: exit after", took, _GRACE + 1, "s")
    figures.equal(f"{name}: status", server.process.poll(), 0)
    await asyncio.sleep(0.2)
    figures.equal(f"{name}: processes left", len(descendants_left(children)), 0)
    figures.holds(f"{name}: socket removed", not Path(server.folder / "s.sock").exists())


def _tells_tokens(end: End) -> bool:
    """Returns whether the error's count fits the pieces that came: a token of an engine may have no text yet."""
    told = int(end.facts.get("output_tokens", "-1"))
    return end.pieces <= told <= max(end.pieces * 1.5 + 8, end.pieces)


def _start(channel: object, count: int, script: object) -> tuple[list[asyncio.Task[End]], asyncio.Task[None]]:
    """Starts streams; the second value ends when each has sent something."""
    stub, events, tasks = Stub(channel), [], []
    for _ in range(count):
        event = asyncio.Event()
        if script is None:
            message = request("Count to a thousand.", llm="local", logit_bias=ENDLESS, max_tokens=1900)
        else:
            message = request(script=script)
        events.append(event)
        tasks.append(asyncio.create_task(streamed(stub.StreamGenerate(message), event)))

    async def begun() -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*(event.wait() for event in events))

    return tasks, asyncio.create_task(begun())


ROW = Row(
    numbers=(4, 28),
    title="SIGTERM to the process and to the group, and five other signals, with 50 running",
    pass_mark="each OK or UNAVAILABLE with RetryInfo and tokens; exit within grace + 1 s; none lost by the others",
    measure=measure,
    quick=True,
)
