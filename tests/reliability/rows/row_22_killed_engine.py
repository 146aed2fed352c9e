"""Row 22: an engine process that is killed.

Pass mark: after kill -9 to the engine under 50 streams each of its calls ends UNAVAILABLE with ENGINE_CRASHED,
RetryInfo and its tokens; another LLM's caller meets with no error; the engine serves again by itself; five times
over.
Load: 50 streams, five kills.
"""

from __future__ import annotations

import asyncio
import time

from tests.reliability.caller import calling
from tests.reliability.calls import DEMO, ENDLESS, Stub, request, streamed, tally, unary
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import descendants_left, echo, serving

_STREAMS = 50


async def measure(setting: Setting) -> Figures:
    """Kills the engine, again and again."""
    figures = setting.figures()
    kills = setting.load(5, 1)
    message = request("Count to a thousand.", llm="local", logit_bias=ENDLESS, max_tokens=1900)
    ends, slowest, killed = [], 0.0, []
    async with (
        serving(setting.folder, {"local": DEMO} | echo()) as server,
        calling(server.address, llm="echo") as other,
        server.channel() as channel,
    ):
        stub = Stub(channel)
        for _ in range(kills):
            events = [asyncio.Event() for _ in range(_STREAMS)]
            streams = [asyncio.create_task(streamed(stub.StreamGenerate(message), event)) for event in events]
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 60)
            killed.append(server.engine)
            killed[-1].kill()
            began = time.monotonic()
            ends += await asyncio.wait_for(asyncio.gather(*streams), 60)
            end = await unary(stub.Generate(request(llm="local", max_tokens=3), timeout=60))
            slowest = max(slowest, time.monotonic() - began if end.code == "OK" else float("inf"))
        met = await other.stop()
        figures.equal("processes left of the killed engines", len(descendants_left(killed)), 0)
    figures.equal("ends", tally(ends), {"UNAVAILABLE ENGINE_CRASHED": kills * _STREAMS})
    figures.equal("ends without RetryInfo", sum(end.retry_after is None for end in ends), 0)
    figures.equal("ends without tokens", sum("output_tokens" not in end.facts for end in ends), 0)
    figures.at_most("serving again after", slowest, 45, "s")
    figures.equal("errors of another LLM's caller", met.errors, {})
    figures.inform("its p99", met.percentile(0.99), "ms")
    return figures


ROW = Row(
    numbers=(22,),
    title="kill -9 of the engine process under 50 streams, five times",
    pass_mark="its calls UNAVAILABLE with RetryInfo, other LLMs untouched, serving again by itself",
    measure=measure,
)
