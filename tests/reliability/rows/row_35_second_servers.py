"""Rows 24 and 35: a second server where one listens already.

Pass mark: a second server refuses, and says why, on the same address in another spelling (127.0.0.1, localhost, ::1,
0.0.0.0, ::) and on the same unix socket, its lock file deleted or not; or each serves all addresses that its name
stands for. The first one serves on, and a socket's file is still there.
Load: fourteen pairs of servers.
"""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import psutil

from tests.addresses import has_ipv6
from tests.reliability.figures import Figures, Row, Setting
from tests.reliability.server_process import ServerProcess, free_port, serving

_PAIRS = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "localhost"),
    ("localhost", "127.0.0.1"),
    ("localhost", "localhost"),
    ("localhost", "[::1]"),
    ("127.0.0.1", "0.0.0.0"),
    ("0.0.0.0", "127.0.0.1"),
    ("0.0.0.0", "localhost"),
    ("[::1]", "localhost"),
    ("[::1]", "[::]"),
    ("[::]", "127.0.0.1"),
    ("[::]", "0.0.0.0"),
]


async def measure(setting: Setting) -> Figures:
    """Starts a second server beside a first one, in each way."""
    figures = setting.figures()
    pairs = _PAIRS if setting.full else _PAIRS[:3]
    if not has_ipv6():
        pairs = [pair for pair in pairs if "[" not in "".join(pair)]
        figures.inform("IPv6", "not on this machine")
    for number, (first, second) in enumerate(pairs):
        port = free_port()
        addresses = (f"{first}:{port}", f"{second}:{port}")
        await _pair(setting.folder / str(number), figures, f"{first} then {second}", *addresses)
    path = setting.folder / "s.sock"
    for name, removed in (("unix socket", False), ("unix socket, lock file deleted", True)):
        await _pair(
            setting.folder / ("deleted" if removed else "kept"),
            figures,
            name,
            f"unix://{path}",
            f"unix://{path}",
            removed,
        )
    return figures


async def _pair(folder: Path, figures: Figures, name: str, first: str, second: str, delete_lock: bool = False) -> None:
    any_address = {"insecure": True}
    async with serving(folder / "first", listen=first, log_level="info", **any_address) as server:
        if delete_lock:
            for lock in Path(first.removeprefix("unix://")).parent.glob("*.lock"):
                lock.unlink()
        async with serving(folder / "second", listen=second, ready=False, log_level="info", **any_address) as other:
            for _ in range(100):
                if other.process.poll() is not None or "listening on" in other.log:
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.3)
            status = other.process.poll()
            log = other.log.strip()
            both_whole = status is None and _serves_all(server) and _serves_all(other)
            if status is None:
                await other.ends()
        first_serves = await server.is_healthy()
    refused = status not in (None, 0) and bool(re.search(r"listen|in use|socket", log))
    outcome = "refused" if refused else "both serve all that they name" if both_whole else f"{status}: {log[-120:]}"
    figures.holds(
        name, first_serves and (refused or both_whole), outcome if first_serves else "the first serves no more"
    )


def _serves_all(server: ServerProcess) -> bool:
    """Returns whether a server listens on every address that the name of its address stands for."""
    host, _, port = server.address.rpartition(":")
    named = {str(info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)}
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(server.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == int(port)
    }
    return named <= listening


ROW = Row(
    numbers=(24, 35),
    title="a second server on the same address in another spelling, on the same unix socket",
    pass_mark="the second refuses, or both serve what they say",
    measure=measure,
)
