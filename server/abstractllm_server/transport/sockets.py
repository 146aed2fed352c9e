"""The sockets of this process: those that its callers are connected through."""

from __future__ import annotations

import os
import resource
import socket
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

__all__ = ["Connection", "address_of_peer", "connections", "shut_down"]

Address = tuple[str, int]

# Linux's struct tcp_info: the milliseconds since the last data came, and all bytes that came.
_INFO_BYTES, _BYTES_RECEIVED = 136, struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Connection:
    """One caller's connection.

    Args:
        descriptor: Its file descriptor.
        peer: The address of its other end.
        received: The bytes that came through it; None where the system does not tell.
    """

    descriptor: int
    peer: Address
    received: int | None


def connections(ports: Collection[int]) -> Iterator[Connection]:
    """Yields the connections of this process to some of its own ports.

    gRPC neither tells which connections it has, nor closes one; the system knows them.
    """
    for descriptor in _descriptors() if ports else ():
        with suppress(OSError), _borrow(descriptor) as one:
            if one is not None and one.getsockname()[1] in ports:
                yield Connection(descriptor, _address(one.getpeername()), _received(one))


def shut_down(connection: Connection) -> bool:
    """Ends a connection in both directions; gRPC notices, and closes it.

    Returns:
        False if the descriptor belongs to another connection by now.
    """
    with suppress(OSError), _borrow(connection.descriptor) as one:
        if one is not None and _address(one.getpeername()) == connection.peer:
            one.shutdown(socket.SHUT_RDWR)
            return True
    return False


@lru_cache(maxsize=8192)
def address_of_peer(peer: str) -> Address | None:
    """Returns the address in gRPC's name of a connection, as in `ipv4:1.2.3.4:555` or `ipv6:%5B::1%5D:555`."""
    kind, _, rest = peer.partition(":")
    host, separator, port = unquote(rest).rpartition(":")
    if kind not in ("ipv4", "ipv6") or not separator or not port.isdigit():
        return None
    return _address((host.strip("[]"), int(port)))


@contextmanager
def _borrow(descriptor: int) -> Iterator[socket.socket | None]:
    """Gives the TCP socket behind a descriptor that belongs to someone else, without closing it; None for any other."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        yield None
        return
    one = socket.socket(fileno=descriptor)
    try:
        yield one if one.family in (socket.AF_INET, socket.AF_INET6) else None
    finally:
        one.detach()


def _descriptors() -> Iterable[int]:
    """Returns the descriptors that are open; where none is left to read their folder with, all that there may be."""
    try:
        return [int(path.name) for path in Path("/dev/fd").iterdir() if path.name.isdigit()]
    except OSError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _address(name: tuple[object, ...]) -> Address:
    host, port = str(name[0]).partition("%")[0], name[1]
    assert isinstance(port, int)
    # A socket of both families names callers of IPv4 by addresses of IPv6; gRPC does not.
    return host.removeprefix("::ffff:") if "." in host else host, port


def _received(one: socket.socket) -> int | None:
    if not hasattr(socket, "TCP_INFO"):
        return None
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return int(_BYTES_RECEIVED.unpack_from(info, 128)[0]) if len(info) >= _INFO_BYTES else None
