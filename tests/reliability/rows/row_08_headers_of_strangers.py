"""Row 8: ten times the limit of header-only streams without credentials.

Pass mark: while ten connections each open as many header-only streams as a connection may have, a good caller who
keeps one connection, and one who makes a new connection for each call, are served, all of them.
Load: 41,000 streams on ten connections, held for ten seconds.
"""

from __future__ import annotations

import asyncio

from tests.reliability.caller import calling
from tests.reliability.calls import CHECK, GENERATE
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.server_process import serving
from tests.reliability.tokens import TOKEN, token_file

_LIMIT = 4_096
"""Streams of one connection."""


async def measure(setting: Setting) -> Figures:
    """Holds the streams open while two good callers call."""
    figures = setting.figures()
    connections: list[RawConnection] = []
    async with (
        serving(setting.folder, tokens=str(token_file(setting.folder))) as server,
        calling(server.address, token=TOKEN) as good,
        calling(server.address, token=TOKEN, fresh=True, interval=0.1) as newcomer,
    ):
        before = server.rss
        try:
            for number in range(setting.load(10, 2)):
                connections.append(await RawConnection.open(server.address))
                block = header_block((GENERATE, CHECK)[number % 2])
                for stream in range(_LIMIT):
                    connections[-1].start(block)
                    if stream % 256 == 0:
                        await connections[-1].drain()
                        await asyncio.sleep(0)
            await asyncio.sleep(setting.load(10, 2))
            figures.inform("memory while they are open", server.rss - before, "MiB more")
            for name, caller in (("kept connection", good), ("new connections", newcomer)):
                met = await caller.stop()
                figures.equal(f"errors of a caller with a {name}", met.errors, {})
                figures.at_least("calls", met.calls, 10)
                figures.inform("p99", met.percentile(0.99), "ms")
        finally:
            for connection in connections:
                await connection.close()
    return figures


ROW = Row(
    numbers=(8,),
    title="ten times the limit of header-only streams without credentials",
    pass_mark="a good caller is served 100 %",
    measure=measure,
    quick=True,
)
