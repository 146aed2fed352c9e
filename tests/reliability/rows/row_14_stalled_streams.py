"""Row 14: callers who stop reading their streams.

Pass mark: 200 streams of 1 MiB each to a window that stays closed are ended by the write timeout; afterwards the
server holds at most 50 MiB more; another caller's p99 stays below twice what it was.
Load: 200 streams on one connection, and again on twenty; a write timeout of two seconds.
"""

from __future__ import annotations

import asyncio

from tests.reliability.caller import calling
from tests.reliability.calls import STREAM, request
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.scrape import until_none_active
from tests.reliability.server_process import echo, free_port, serving

_WRITE_TIMEOUT = 2.0
_INTERVAL = 0.002
"""Seconds between two calls of the other caller: enough calls for a p99 to be more than the slowest of them."""
_FLOOR = 20.0
"""Milliseconds below which a p99 says more of the machine than of the server."""


async def measure(setting: Setting) -> Figures:
    """Stalls the streams on one connection, then on many."""
    figures = setting.figures()
    # Answers as fast as an engine makes them; in all as much as a configuration file may hold.
    script = [{"text": "x" * 40_960}, {"delay": 0.04}] * 25
    llms = echo() | {"long": {"provider": "scripted", "script": script}}
    monitoring = f"127.0.0.1:{free_port()}"
    streams = setting.load(200, 60)
    payload = request(llm="long").SerializeToString()
    async with serving(setting.folder, llms, write_timeout=_WRITE_TIMEOUT, monitoring=monitoring) as server:
        async with calling(server.address, parameters={"max_tokens": 1}, interval=_INTERVAL) as quiet:
            await asyncio.sleep(3)
            usual = (await quiet.stop()).percentile(0.99)
        before = server.rss
        for connections in (1, 20):
            name = f"{connections} connection{'s' if connections > 1 else ''}"
            opened = [await RawConnection.open(server.address, window=0) for _ in range(connections)]
            try:
                async with calling(server.address, parameters={"max_tokens": 1}, interval=_INTERVAL) as good:
                    for number in range(streams):
                        opened[number % connections].unary(header_block(STREAM), payload)
                    await asyncio.sleep(1)
                    took = 1 + await until_none_active(monitoring, "StreamGenerate", 4 * _WRITE_TIMEOUT)
                    met = await good.stop()
                figures.at_most(f"{name}: all ended after", took, 2 * _WRITE_TIMEOUT, "s")
                kept = await server.settled_rss(before + 50) - before
                figures.at_most(f"{name}: kept after it, connections open", kept, 50, "MiB")
            finally:
                for connection in opened:
                    await connection.close()
            figures.equal(f"{name}: errors of another caller", met.errors, {})
            figures.at_most(f"{name}: its p99 of {met.calls} calls", met.percentile(0.99), max(2 * usual, _FLOOR), "ms")
            figures.inform(f"{name}: its slowest call, as the streams begin", met.percentile(1), "ms")
    return figures


ROW = Row(
    numbers=(14,),
    title="200 readers that stop reading streams of 1 MiB",
    pass_mark="RSS +50 MiB at most after the write timeout; ended by it; others' p99 under 2x",
    measure=measure,
)
