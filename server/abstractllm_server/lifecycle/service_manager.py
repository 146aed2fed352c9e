"""The messages to a service manager about the server, in the protocol of systemd's sd_notify."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

__all__ = ["ServiceManager"]


class ServiceManager:
    """The service manager that started this process; without one nothing is sent.

    The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. Sending never waits.

    Attributes:
        watchdog_interval: Seconds between two signs of life, half of those after which the manager restarts the
            service; None if it does not want any.
    """

    def __init__(self) -> None:
        # Taken out, so that a child process does not speak in the server's place.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        is_meant = self._address and microseconds.isdigit() and pid in ("", str(os.getpid()))
        self.watchdog_interval = int(microseconds) / 2_000_000 if is_meant and int(microseconds) else None

    def ready(self, status: str) -> None:
        """The server listens, or has taken a new configuration over."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The server reads its configuration again; `ready` follows, whether or not it could be used."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, seconds: float) -> None:
        """The server stops, and may take so many seconds for it."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=stopping")

    async def watch(self) -> None:
        """Gives signs of life, from the event loop, until it is cancelled: an event loop that is blocked gives none."""
        while self.watchdog_interval is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_interval)

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in assignments).encode()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message, self._address)
