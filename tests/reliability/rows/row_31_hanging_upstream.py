"""Row 31: an upstream that hangs.

Pass mark: of 4,000 calls of 100 kB to a hosted LLM whose API never answers, those beyond the bound end OVERLOADED with
RetryInfo; the server holds at most 100 MiB more; another LLM's caller meets with no error; when the callers leave,
nothing is left at the upstream. All through one connection, then all at once through ten.
Load: twice 4,000 calls, 800 MB through the loopback interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.providers.fake_http import FakeServer
from tests.reliability.caller import calling
from tests.reliability.calls import End, Stub, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, echo, serving
from tests.reliability.upstream import hosted, silent, upstream


async def measure(setting: Setting) -> Figures:
    """Sends the calls; the upstream takes them and is silent."""
    figures = setting.figures()
    calls = setting.load(4_000, 1_200)
    async with (
        upstream(silent) as api,
        serving(setting.folder, echo() | {"hosted": hosted(api)}) as server,
        calling(server.address, llm="echo") as other,
    ):
        async with server.channel() as channel:
            await unary(Stub(channel).Generate(request(llm="hosted"), timeout=0.5))
        await asyncio.sleep(0.5)
        before = server.rss
        for connections in (1, 10) if setting.full else (1,):
            await _overload(figures, server, api, before, calls, connections)
        met = await other.stop()
        figures.equal("errors of another LLM's caller", met.errors, {})
        figures.inform("its p99", met.percentile(0.99), "ms")
    return figures


async def _overload(
    figures: Figures, server: ServerProcess, api: FakeServer, before: float, calls: int, connections: int
) -> None:
    name = f"{connections} connection{'s' if connections > 1 else ''}"
    message = request("x" * 100_000, llm="hosted")
    async with contextlib.AsyncExitStack() as stack:
        stubs = [Stub(await stack.enter_async_context(server.channel())) for _ in range(connections)]
        server.reset_peak()
        pending = [asyncio.create_task(unary(stubs[number % connections].Generate(message))) for number in range(calls)]
        done: set[asyncio.Task[End]] = set()
        end = time.monotonic() + 60
        # Until five seconds bring no further refusal.
        while time.monotonic() < end:
            finished, _ = await asyncio.wait(pending, timeout=5)
            if len(finished) == len(done) and finished:
                break
            done = finished
        figures.inform(f"{name}: peak", server.peak - before, "MiB more")
        kept = await server.settled_rss(before + 100) - before
        figures.at_most(f"{name}: held while the bound is reached", kept, 100, "MiB more")
        refusals = [task.result() for task in done]
        figures.inform(f"{name}: running at the upstream", api.running)
        figures.inform(f"{name}: refused", f"{tally(refusals)}")
        overloaded = [end for end in refusals if end.reason == "OVERLOADED" and end.retry_after is not None]
        figures.equal(f"{name}: refused otherwise than OVERLOADED with RetryInfo", len(refusals) - len(overloaded), 0)
        figures.at_most(f"{name}: running and waiting", calls - len(done), 1_000)
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        end = time.monotonic() + 10
        while api.running and time.monotonic() < end:
            await asyncio.sleep(0.05)
        figures.equal(f"{name}: left at the upstream after the callers left", api.running, 0)


ROW = Row(
    numbers=(31,),
    title="4,000 calls of 100 kB to a hosted LLM whose upstream hangs",
    pass_mark="OVERLOADED with RetryInfo beyond the bound; RSS +100 MiB at most",
    measure=measure,
)
