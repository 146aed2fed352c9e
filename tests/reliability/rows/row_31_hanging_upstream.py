"""Row 31: an upstream that hangs.

Pass mark: of 4,000 calls of 100 kB to a hosted LLM whose API never answers, those beyond the bound end OVERLOADED
with RetryInfo; the server holds at most 100 MiB more; another LLM's caller meets with no error; when the callers
leave, nothing is left at the upstream.
Load: 4,000 calls, 400 MB through the loopback interface, on ten connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.reliability.caller import calling
from tests.reliability.calls import End, Stub, request, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import echo, serving
from tests.reliability.upstream import hosted, silent, upstream


async def measure(setting: Setting) -> Figures:
    """Sends the calls; the upstream takes them and is silent."""
    figures = setting.figures()
    calls = setting.load(4_000, 1_500)
    message = request("x" * 100_000, llm="hosted")
    async with (
        upstream(silent) as api,
        serving(setting.folder, echo() | {"hosted": hosted(api)}) as server,
        calling(server.address, llm="echo") as other,
        contextlib.AsyncExitStack() as stack,
    ):
        # More connections than the calls need: what waits in the clients says nothing of the server.
        stubs = [Stub(await stack.enter_async_context(server.channel())) for _ in range(10)]
        await unary(stubs[0].Generate(request(llm="hosted"), timeout=0.5))
        await asyncio.sleep(0.5)
        before = server.rss
        server.reset_peak()
        pending = [asyncio.create_task(unary(stubs[number % 10].Generate(message))) for number in range(calls)]
        done: set[asyncio.Task[End]] = set()
        end = time.monotonic() + setting.load(60, 20)
        # Until five seconds bring no further refusal.
        while time.monotonic() < end:
            finished, _ = await asyncio.wait(pending, timeout=5)
            if len(finished) == len(done) and finished:
                break
            done = finished
        figures.at_most("peak", server.peak - before, 100, "MiB more")
        refusals = [task.result() for task in done]
        figures.inform("running at the upstream", api.running)
        figures.inform("refused", f"{tally(refusals)}")
        overloaded = [end for end in refusals if end.reason == "OVERLOADED" and end.retry_after is not None]
        figures.equal("refusals that are not OVERLOADED with RetryInfo", len(refusals) - len(overloaded), 0)
        figures.at_most("running and waiting", calls - len(done), 1_000)
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        end = time.monotonic() + 10
        while api.running and time.monotonic() < end:
            await asyncio.sleep(0.05)
        figures.equal("left at the upstream after the callers left", api.running, 0)
        met = await other.stop()
        figures.equal("errors of another LLM's caller", met.errors, {})
        figures.inform("its p99", met.percentile(0.99), "ms")
    return figures


ROW = Row(
    numbers=(31,),
    title="4,000 calls of 100 kB to a hosted LLM whose upstream hangs",
    pass_mark="OVERLOADED with RetryInfo beyond the bound; RSS +100 MiB at most",
    measure=measure,
    quick=True,
)
