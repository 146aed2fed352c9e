"""Rows 1, 2 and 3: callers who leave, and deadlines.

Pass mark: of 500 streams 10 % are cancelled midway: within a second nothing generates for them any more. Of calls
cancelled while queued, in prefill, in decode and at the end, 100 of each leave nothing behind: the engine rests, and
the next call is answered. At a deadline of 500 ms on an answer of ten seconds the engine stops within 200 ms, and the
connection to a hosted provider is closed by then.
Load: 500 streams of a hosted LLM, 300 calls of a real engine; resting is seen by the processor time of the engine
process.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil

from tests.providers.fake_http import FakeServer
from tests.reliability.calls import DEMO, ENDLESS, End, Stub, request, streamed, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, serving
from tests.reliability.upstream import hosted, speaking, upstream

_LONG = "word " * 1500
_MESSAGE = request("Count to a thousand.", llm="local", logit_bias=ENDLESS, max_tokens=1900)


async def measure(setting: Setting) -> Figures:
    """Cancels calls of a hosted LLM, then those of an engine."""
    figures = setting.figures()
    async with (
        upstream(speaking(100, 0.1)) as api,
        serving(setting.folder, {"local": DEMO, "hosted": hosted(api, max_concurrent_requests=1000)}) as server,
    ):
        await _hosted(figures, server, api, setting.load(500, 100))
        await _phases(figures, server, setting.load(100, 20))
        await _deadline(figures, server, api)
    return figures


async def _hosted(figures: Figures, server: ServerProcess, api: FakeServer, count: int) -> None:
    async with server.channel() as channel:
        stub = Stub(channel)
        calls = [stub.StreamGenerate(request(llm="hosted")) for _ in range(count)]
        events = [asyncio.Event() for _ in calls]
        ends = [asyncio.create_task(streamed(call, event)) for call, event in zip(calls, events, strict=True)]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 60)
        running = api.running
        for call in calls[: count // 10]:
            call.cancel()
        await _until(lambda: api.running <= running - count // 10, 5)
        left = api.running - (running - count // 10)
        figures.equal(f"{count} streams, a tenth cancelled: left at the upstream of those", max(0, left), 0)
        finished = await asyncio.wait_for(asyncio.gather(*ends), 120)
        figures.equal("ends", tally(finished), {"CANCELLED": count // 10, "OK": count - count // 10})
        figures.equal("left at the end", api.running, 0)


async def _phases(figures: Figures, server: ServerProcess, count: int) -> None:
    async with server.channel() as channel:
        stub = Stub(channel)
        await stub.Generate(request(llm="local", max_tokens=3), timeout=90)
        for phase in ("decode", "prefill", "queued", "end"):
            calls: list[Any] = []
            if phase == "queued":
                message = _MESSAGE
            else:
                message = request(
                    _LONG + phase, llm="local", logit_bias=ENDLESS, max_tokens=2 if phase == "end" else 300
                )
            if phase == "decode":
                message = _MESSAGE
            calls = [stub.StreamGenerate(message) for _ in range(count)]
            events = [asyncio.Event() for _ in calls]
            ends = [asyncio.create_task(streamed(call, event)) for call, event in zip(calls, events, strict=True)]
            if phase in ("decode", "end"):
                await asyncio.wait([asyncio.create_task(event.wait()) for event in events[:10]], timeout=60)
            else:
                await asyncio.sleep(0.3)
            for call in calls:
                call.cancel()
            rest = await rests_after(server.engine, 10)
            figures.at_most(f"{count} cancelled in {phase}: the engine rests after", rest, 1.0, "s")
            await asyncio.gather(*ends)
        end = await unary(stub.Generate(request(llm="local", max_tokens=3), timeout=20))
        figures.equal("the next call", str(end), "OK")


async def _deadline(figures: Figures, server: ServerProcess, api: FakeServer) -> None:
    engine = server.engine
    async with server.channel() as channel:
        stub = Stub(channel)
        await asyncio.sleep(0.5)
        call = asyncio.create_task(unary(stub.Generate(_MESSAGE, timeout=0.5)))
        await asyncio.sleep(0.5)
        rest = await rests_after(engine, 5)
        end: End = await call
        figures.equal("deadline of 500 ms, engine: end", end.code, "DEADLINE_EXCEEDED")
        figures.at_most("it rests after the deadline by", 1000 * rest, 200, "ms")
        began = time.monotonic()
        end = await unary(stub.Generate(request(llm="hosted"), timeout=0.5))
        await _until(lambda: api.running == 0, 5)
        figures.equal("deadline of 500 ms, hosted: end", end.code, "DEADLINE_EXCEEDED")
        figures.at_most(
            "the upstream's connection is closed after it by", 1000 * (time.monotonic() - began - 0.5), 200, "ms"
        )


async def rests_after(engine: psutil.Process, limit: float) -> float:
    """Returns the seconds until a process has used no processor time for a while, or infinity."""
    began = changed = time.monotonic()
    used = _used(engine)
    while time.monotonic() - began < limit:
        await asyncio.sleep(0.02)
        if (now := _used(engine)) - used > 0.02:
            used, changed = now, time.monotonic()
        if time.monotonic() - changed > 0.3:
            return changed - began
    return float("inf")


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _until(holds: Any, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not holds() and time.monotonic() < end:
        await asyncio.sleep(0.01)


ROW = Row(
    numbers=(1, 2, 3),
    title="500 streams with a tenth cancelled; calls cancelled in every phase; deadlines",
    pass_mark="nothing left in 1 s, 100 of 100 each; the engine stops within 200 ms of a deadline, upstream closed",
    measure=measure,
)
