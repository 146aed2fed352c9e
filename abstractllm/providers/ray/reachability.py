"""Looking for a cluster before Ray does, which would look for a quarter of an hour."""

from __future__ import annotations

import contextlib
import socket

from abstractllm.errors import ConfigurationError, ProviderUnavailableError

__all__ = ["LOCAL", "check_reachable", "unreachable"]

LOCAL = "local"
"""The address of a Ray that lives and ends with this process."""
_CONNECT_SECONDS = 5.0
_RETRY_AFTER = 5.0
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def check_reachable(address: str) -> None:
    """Checks that the head of a cluster takes connections, if its host and port are known.

    Raises:
        ConfigurationError: If it is no address of a head, which those of the environment alone can be.
        ProviderUnavailableError: If it does not.
    """
    host, _, port = address.rpartition(":")
    if host and ("://" in address or not port.isdecimal()):
        raise ConfigurationError(
            f"RAY_ADDRESS: must be HOST:PORT of a cluster's head, auto or local, got {address!r:.200}; ray_address can "
            "name another one than the environment does",
            field="ray_address",
            requested=address,
        )
    if not host:  # `auto` and `local`: Ray looks on this machine
        return
    host = host.strip("[]")
    # A head that was started without an address listens on the machine's own one, by which Ray looks for it.
    hosts = [host, socket.gethostname()] if host in _THIS_MACHINE else [host]
    reason = ""
    for name in hosts:
        try:
            with contextlib.closing(socket.create_connection((name, int(port)), _CONNECT_SECONDS)):
                return
        except (OSError, OverflowError, UnicodeError) as error:
            reason = reason or str(error)
    raise unreachable(address, reason)


def unreachable(address: str, reason: str) -> ProviderUnavailableError:
    """Returns the error of a cluster that cannot be reached."""
    return ProviderUnavailableError(
        f"ray_address: Ray at {address!r} cannot be reached: {reason}", retry_after=_RETRY_AFTER
    )
