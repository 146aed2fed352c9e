"""A DNS server on the loopback interface, whose one name stands for the addresses that it is told."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["NAME", "NameServer", "name_server"]

NAME = "llm.test"
_A, _IN = 1, 1
_ANSWER, _AUTHORITATIVE, _NO_SUCH_NAME = 0x8000, 0x0400, 3


class NameServer:
    """A running server of names.

    Attributes:
        addresses: The IPv4 addresses of `NAME`, which may be replaced at any time.
        queries: The number of times that it was asked for them.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        self.queries = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="name server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        number, flags = struct.unpack_from(">HH", query)
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode("ascii"))
            at += 1 + length
        (kind,) = struct.unpack_from(">H", query, at + 1)
        is_known = ".".join(labels).lower() == NAME
        addresses = self.addresses if is_known and kind == _A else ()
        self.queries += bool(addresses)
        flags = _ANSWER | _AUTHORITATIVE | flags & 0x0100 | (0 if is_known else _NO_SUCH_NAME)
        answer = struct.pack(">HHHHHH", number, flags, 1, len(addresses), 0, 0) + query[12 : at + 5]
        for address in addresses:
            answer += struct.pack(">HHHIH", 0xC00C, _A, _IN, 1, 4) + socket.inet_aton(address)
        return answer


@contextmanager
def name_server(*addresses: str) -> Iterator[NameServer]:
    """Answers for `NAME` with addresses."""
    server = NameServer(addresses)
    try:
        yield server
    finally:
        server.close()
