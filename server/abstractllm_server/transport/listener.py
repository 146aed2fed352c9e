"""The address that a server listens on: all of it, or an error."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc
from grpc import aio

from abstractllm.errors import ConfigurationError
from abstractllm_server.transport.unix_socket import UnixSocket

__all__ = ["Listener"]

_WILDCARDS = ("0.0.0.0", "::")


class ListeningServer(Protocol):
    """A server that takes addresses as one of gRPC does."""

    def add_insecure_port(self, address: str, /) -> int:
        """Listens on an address in plain text, and returns the port; RuntimeError if it cannot."""


class Listener:
    """A server's address.

    gRPC listens on those of a name's addresses that are free, and says nothing of the others: a second server on
    `localhost` would answer on ::1 alone. Here each of them is listened on, or the server does not start.

    Args:
        server: The server that is to listen.
        listen: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
        credentials: Makes the credentials of TLS for one address, of a server of grpc.aio; plain text if absent.
        key: The key of the configuration, or the variable, that the address comes from.

    Raises:
        ConfigurationError: If the address, or one that its name stands for, cannot be listened on.

    Attributes:
        address: The address that clients connect to.
        ports: The ports of TCP.
    """

    def __init__(
        self,
        server: ListeningServer,
        listen: str,
        credentials: Callable[[], grpc.ServerCredentials] | None = None,
        *,
        key: str = "listen",
    ) -> None:
        self._server, self._listen, self._credentials, self._key = server, listen, credentials, key
        self._socket: UnixSocket | None = None
        self.ports: frozenset[int] = frozenset()
        if listen.startswith("unix:"):
            self._socket = UnixSocket(listen)
            assert isinstance(server, aio.Server)
            self._socket.bind(server)
            self.address = self._socket.address
            return
        host, _, port = listen.rpartition(":")
        addresses = _addresses(host.strip("[]"))
        number = int(port)
        if not number and len(addresses) > 1:
            number = _free_port(addresses)
        for address in addresses:
            number = self._bind(address, number)
        self.ports = frozenset({number})
        self.address = f"{host}:{number}"

    def close(self) -> None:
        """Removes what the server leaves behind."""
        if self._socket is not None:
            self._socket.close()

    def _bind(self, host: str, port: int) -> int:
        """Listens on one address; returns its port."""
        if port and host in _WILDCARDS:
            # gRPC takes the family that is free.
            for wildcard in _WILDCARDS:
                if _is_in_use(wildcard, port):
                    raise self._error(f"{_joined(wildcard, port)} is in use")
        address = _joined(host, port)
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            assert isinstance(self._server, aio.Server)
            return self._server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            fault = _bind_error(host, port)
            in_use = f"is {address} in use?"
            raise self._error(
                in_use if fault is None or fault.errno == errno.EADDRINUSE else str(fault.strerror)
            ) from error

    def _error(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._key}: cannot listen on {self._listen}; {reason}", field=self._key, requested=self._listen
        )


def _addresses(host: str) -> list[str]:
    """Returns the addresses that a host stands for, those of families that this machine lacks left out."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    if host == "localhost":  # some systems name one of its addresses, and grpc's resolver may name the other
        return [address for address in ("127.0.0.1", "::1") if _exists(address)] or [host]
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return [host]  # its first use tells what is wrong with it
    addresses = dict.fromkeys(str(info[4][0]) for info in infos)
    return [address for address in addresses if _exists(address)] or [host]


def _free_port(addresses: Sequence[str]) -> int:
    """Returns a port that is free at several addresses; 0, for any one, if there seems to be none."""
    for _ in range(100):
        with socket.socket(socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET) as probe:
            probe.bind((addresses[0], 0))
            port = int(probe.getsockname()[1])
        if not any(_is_in_use(address, port) for address in addresses):
            return port
    return 0


def _exists(host: str) -> bool:
    return _bind_error(host, 0) is None


def _is_in_use(host: str, port: int) -> bool:
    fault = _bind_error(host, port)
    return fault is not None and fault.errno == errno.EADDRINUSE


def _bind_error(host: str, port: int) -> OSError | None:
    """Returns the error that listening on an address would meet; None if it is free."""
    is_v6 = ":" in host
    try:
        with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_v6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
