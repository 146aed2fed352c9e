"""Row 9: header-only streams and rapid resets.

Pass mark: 20,000 header-only streams without credentials, and 30,000 streams on one connection that are reset as soon
as they have begun, cost the server at most 20 MiB that it does not give back, and no other caller an error.
Load: five connections; at most a minute and a half.
"""

from __future__ import annotations

import asyncio

from tests.reliability.caller import calling
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.server_process import ServerProcess, serving
from tests.reliability.tokens import TOKEN, token_file

_METHODS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/abstractllm_api.v1.GenerationService/Generate",
)
_CONNECTIONS = 5


async def measure(setting: Setting) -> Figures:
    """Floods with each method, then with resets."""
    figures = setting.figures()
    async with serving(setting.folder, tokens=str(token_file(setting.folder))) as server:
        async with calling(server.address, token=TOKEN) as good:
            await asyncio.sleep(1)
            before = server.rss
            for method in _METHODS:
                name = method.rpartition("/")[2]
                held = await _flood(server, method, setting.load(20_000, 4_000))
                figures.inform(f"{name}: held meanwhile", held - before, "MiB")
                rest = await server.settled_rss(before + 20) - before
                figures.at_most(f"{name}: kept after it", rest, 20, "MiB")
            await _resets(server, setting.load(30_000, 6_000))
            figures.at_most("resets: kept after them", await server.settled_rss(before + 20) - before, 20, "MiB")
            met = await good.stop()
        figures.equal("errors of the good caller", met.errors, {})
        figures.inform("its calls", met.calls)
        figures.inform("its p99", met.percentile(0.99), "ms")
    return figures


async def _flood(server: ServerProcess, method: str, streams: int) -> float:
    """Opens streams of headers alone; returns the memory of the server while they are open, in MiB."""
    block = header_block(method)
    connections = [await RawConnection.open(server.address) for _ in range(_CONNECTIONS)]
    try:
        for number in range(streams):
            connection = connections[number % _CONNECTIONS]
            if not connection.is_closed:
                connection.start(block)
            if number % 200 == 0:
                await connection.drain()
                await asyncio.sleep(0)
        await asyncio.sleep(3)
        return server.rss
    finally:
        for connection in connections:
            await connection.close()


async def _resets(server: ServerProcess, streams: int) -> None:
    block = header_block("/abstractllm_api.v1.GenerationService/Generate")
    async with await RawConnection.open(server.address) as connection:
        for number in range(streams):
            if connection.is_closed:
                return
            connection.reset(connection.start(block))
            if number % 200 == 0:
                await connection.drain()
                await asyncio.sleep(0)
        await asyncio.sleep(1)


ROW = Row(
    numbers=(9,),
    title="20,000 header-only streams by three methods, 30,000 resets",
    pass_mark="other callers 0 errors, RSS +20 MiB at most",
    measure=measure,
)
