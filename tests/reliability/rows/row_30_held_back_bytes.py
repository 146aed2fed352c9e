"""Row 30: callers who hold back the last byte of a big message.

Pass mark: 32 messages of 15 MiB, each but for its last byte, without credentials and with, are ended by a timeout;
afterwards the server holds at most 50 MiB more, while the connections stay open. The same through a method that needs
no credentials; there, however many hold it back, the peak stays below 250 MiB.
Load: 32 connections, 480 MiB through the loopback interface; then 200 messages on 20 connections.
"""

from __future__ import annotations

import asyncio

from tests.reliability.caller import calling
from tests.reliability.calls import CHECK, GENERATE
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block, message
from tests.reliability.server_process import ServerProcess, serving
from tests.reliability.tokens import TOKEN, token_file

_BIG = message(bytes(15 << 20))[:-1]
_LONGEST = 60.0
"""Seconds within which the timeout must have come."""


async def measure(setting: Setting) -> Figures:
    """Holds the last bytes back, three ways."""
    figures = setting.figures()
    ways = [("without a token", GENERATE, None), ("with a token", GENERATE, TOKEN), ("Health/Check", CHECK, None)]
    async with (
        serving(setting.folder, tokens=str(token_file(setting.folder))) as server,
        calling(server.address, token=TOKEN) as good,
    ):
        before = server.rss
        for name, method, token in ways if setting.full else ways[:1]:
            server.reset_peak()
            opened = [await RawConnection.open(server.address) for _ in range(setting.load(32, 16))]
            try:
                ends = await asyncio.gather(*(_hold_back(server, one, method, token) for one in opened))
                figures.inform(f"{name}: peak", server.peak - before, "MiB more")
                figures.equal(f"{name}: ended", sum(ends), len(opened))
                figures.at_most(f"{name}: kept after it", await server.settled_rss(before + 50) - before, 50, "MiB")
            finally:
                for connection in opened:
                    await connection.close()
        server.reset_peak()
        opened = [await RawConnection.open(server.address) for _ in range(setting.load(20, 4))]
        try:
            streams = [one for one in opened for _ in range(10)]
            ends = await asyncio.gather(*(_hold_back(server, one, CHECK, None) for one in streams))
            figures.at_most(f"Health/Check, {len(streams)} messages: peak", server.peak - before, 250, "MiB more")
        finally:
            for connection in opened:
                await connection.close()
        met = await good.stop()
        figures.equal("errors of the good caller", met.errors, {})
        figures.inform("its p99", met.percentile(0.99), "ms")
    return figures


async def _hold_back(server: ServerProcess, connection: RawConnection, method: str, token: str | None) -> bool:
    """Sends all but the last byte; returns whether the server ended the call."""
    stream = connection.start(header_block(method, token))
    try:
        async with asyncio.timeout(_LONGEST):
            await connection.send(stream, _BIG, ends=False)
    except (ConnectionError, TimeoutError):
        pass
    await connection.until_ended(1, _LONGEST)
    return bool(connection.ended) or connection.is_closed


ROW = Row(
    numbers=(30,),
    title="32 callers who hold back the last byte of a 15 MiB message",
    pass_mark="ended by a timeout; +50 MiB at most after it",
    measure=measure,
    seconds=400,
)
