"""Row 27: an engine process that is frozen.

Pass mark: after SIGSTOP to the engine process readiness becomes NOT_SERVING, its calls, deadline or none, end with a
reason, the engine is ended and started again by itself, and the next call is answered, all within the bound that
docs/operations.md states. Another LLM is not held up. After SIGTERM to a server with a frozen engine nothing is left.
Load: one engine, ten streams.
"""

from __future__ import annotations

import asyncio
import signal
import time

from tests.reliability.caller import calling
from tests.reliability.calls import DEMO, ENDLESS, Stub, request, streamed, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, descendants_left, echo, serving

_BOUND = 30.0
"""Seconds until a frozen engine has been noticed and ended, as docs/operations.md states."""
_RESTART = 45.0
"""Seconds that a new engine may take on this machine to load the model: the import of torch alone takes five."""


async def measure(setting: Setting) -> Figures:
    """Freezes an engine under load, then one before the server is to end."""
    figures = setting.figures()
    async with serving(setting.folder / "load", {"local": DEMO} | echo(), grace=2) as server:
        await _freeze(figures, server)
    async with serving(setting.folder / "end", {"local": DEMO}, grace=2) as server:
        children = server.children
        server.engine.suspend()
        figures.at_most("exit of a server with a frozen engine", await server.ends(), 3, "s")
        await asyncio.sleep(0.2)
        figures.equal("processes left", len(descendants_left(children)), 0)
    return figures


async def _freeze(figures: Figures, server: ServerProcess) -> None:
    async with server.channel() as channel, calling(server.address, llm="echo") as other:
        stub = Stub(channel)
        events = [asyncio.Event() for _ in range(10)]
        message = request("Count to a thousand.", llm="local", logit_bias=ENDLESS, max_tokens=1900)
        streams = [asyncio.create_task(streamed(stub.StreamGenerate(message), event)) for event in events]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 60)
        frozen = server.engine
        frozen.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        noticed = await _until_not_serving(server, _BOUND)
        figures.at_most("readiness NOT_SERVING after", noticed, _BOUND, "s")
        await asyncio.wait(streams, timeout=max(1.0, _BOUND - (time.monotonic() - began)))
        ended = [task.result() for task in streams if task.done()]
        for task in streams:
            task.cancel()
        figures.equal("calls ended with a reason", sum(bool(end.reason) for end in ended), len(streams))
        figures.inform("their ends", f"{tally(ended)}")
        end = await unary(stub.Generate(request(llm="local", max_tokens=3), timeout=_RESTART, wait_for_ready=True))
        figures.equal("the next call", str(end), "OK")
        figures.at_most("serving again after", time.monotonic() - began, _BOUND + _RESTART, "s")
        figures.holds("the frozen process is gone", not descendants_left([frozen]))
        met = await other.stop()
        figures.equal("errors of another LLM's caller", met.errors, {})
        figures.at_most("its p99", met.percentile(0.99), 1000, "ms")


async def _until_not_serving(server: ServerProcess, limit: float) -> float:
    began = time.monotonic()
    while time.monotonic() - began < limit:
        if not await server.is_healthy("llm/local"):
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    return float("inf")


ROW = Row(
    numbers=(27,),
    title="an engine process under SIGSTOP",
    pass_mark="NOT_SERVING and calls ended with a reason within 30 s; restarted; none left after exit",
    measure=measure,
)
