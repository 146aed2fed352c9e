"""Row 10: messages that unpack to 3.9 GiB.

Pass mark: sixteen at once, by callers with and without a token, are refused; the server's peak rises by 50 MiB at
most.
Load: sixteen messages of 4 MB.
"""

from __future__ import annotations

import asyncio
import zlib

from tests.reliability.calls import CHECK, GENERATE
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.http2 import RawConnection, header_block, message
from tests.reliability.server_process import ServerProcess, serving
from tests.reliability.tokens import TOKEN, token_file

_BLOCK = 1 << 20
_BLOCKS = 3_994
"""The most MiB whose count of bytes fits the 32 bits of a message's length."""


async def measure(setting: Setting) -> Figures:
    """Sends the bombs to each method, with a token and without."""
    figures = setting.figures()
    bomb = message(_bomb(), compressed=True)
    async with serving(setting.folder, tokens=str(token_file(setting.folder))) as server:
        await asyncio.sleep(0.5)
        for name, method, token in (
            ("Generate without a token", GENERATE, None),
            ("Generate", GENERATE, TOKEN),
            ("Health/Check", CHECK, None),
        ):
            before = server.rss
            server.reset_peak()
            statuses = await asyncio.gather(*(_send(server, method, token, bomb) for _ in range(16)))
            figures.at_most(f"{name}: peak", server.peak - before, 50, "MiB more")
            figures.holds(f"{name}: refused", "0" not in statuses and "" not in statuses, sorted(set(statuses)))
        figures.holds("serves on", await server.is_healthy())
    return figures


def _bomb() -> bytes:
    """Returns zeros, compressed; after a full flush the same bytes can come again and again."""
    compress = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    zeros = bytes(_BLOCK)
    first = compress.compress(zeros) + compress.flush(zlib.Z_FULL_FLUSH)
    again = compress.compress(zeros) + compress.flush(zlib.Z_FULL_FLUSH)
    return first + again * (_BLOCKS - 1)


async def _send(server: ServerProcess, method: str, token: str | None, bomb: bytes) -> str:
    """Sends one; returns the number of its status, or `reset`."""
    async with await RawConnection.open(server.address) as connection:
        stream = connection.start(header_block(method, token, grpc_encoding="gzip"))
        try:
            async with asyncio.timeout(30):
                await connection.send(stream, bomb)
        except (ConnectionError, TimeoutError):
            pass
        await connection.until_ended(1, 30)
        end = connection.ended.get(stream, {})
        return end.get("grpc-status", "reset" if end or connection.is_closed else "")


ROW = Row(
    numbers=(10,),
    title="gzip bombs of 3.9 GiB, 16 at once",
    pass_mark="refused; peak +50 MiB at most",
    measure=measure,
)
