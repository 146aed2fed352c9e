"""Row 29: unary answers that nobody reads.

Pass mark: 200 unary answers of 400 kB to a window that stays closed are ended by the write timeout; afterwards the
server holds at most 50 MiB more, while the connections stay open.
Load: 200 calls on one connection, and again on twenty; a write timeout of two seconds.
"""

from __future__ import annotations

import asyncio

from tests.reliability.calls import GENERATE, request
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.scrape import until_none_active
from tests.reliability.server_process import echo, free_port, serving

_WRITE_TIMEOUT = 2.0


async def measure(setting: Setting) -> Figures:
    """Asks for answers and reads none."""
    figures = setting.figures()
    monitoring = f"127.0.0.1:{free_port()}"
    payload = request().SerializeToString()
    async with serving(
        setting.folder, echo(reply="x" * 400_000), write_timeout=_WRITE_TIMEOUT, monitoring=monitoring
    ) as server:
        await server.is_healthy()
        before = server.rss
        for connections in (1, 20):
            name = f"{connections} connection{'s' if connections > 1 else ''}"
            calls = setting.load(200, 100)
            opened = [await RawConnection.open(server.address, window=0) for _ in range(connections)]
            try:
                for number in range(calls):
                    opened[number % connections].unary(header_block(GENERATE), payload)
                await asyncio.sleep(1)
                figures.inform(f"{name}: held before the timeout", server.rss - before, "MiB")
                took = 1 + await until_none_active(monitoring, "Generate", 4 * _WRITE_TIMEOUT)
                figures.at_most(f"{name}: all ended after", took, 2 * _WRITE_TIMEOUT, "s")
                kept = await server.settled_rss(before + 50) - before
                figures.at_most(f"{name}: kept after it, connections open", kept, 50, "MiB")
                # The few whose answer is half in the connection's own window cannot be told that they have ended.
                figures.inform(f"{name}: whose caller has been told", sum(len(one.ended) for one in opened))
            finally:
                for connection in opened:
                    await connection.close()
        figures.holds("serves on", await server.is_healthy())
    return figures


ROW = Row(
    numbers=(29,),
    title="200 unary answers of 400 kB to a zero window",
    pass_mark="ended by the write timeout; RSS +50 MiB at most after it",
    measure=measure,
)
