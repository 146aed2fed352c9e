"""Addresses to listen on."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from abstractllm.errors import ConfigurationError

__all__ = ["check_port_address", "is_local"]

_NAME = re.compile("[A-Za-z0-9_.-]+")
"""The name of a host, or an address of IPv4."""


def is_local(listen: str) -> bool:
    """Returns whether only this machine can connect to an address.

    Raises:
        ConfigurationError: If the text is not a valid address.
    """
    if listen.startswith("unix:") and Path(listen.removeprefix("unix:").removeprefix("//")).name:
        return True
    host = _host(listen)
    if host is None:
        raise ConfigurationError(
            f"listen: {listen!r} is not a valid address; write HOST:PORT or unix:///PATH",
            field="listen",
            requested=listen,
        )
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_port_address(address: str, key: str) -> None:
    """Checks an address that has to have a port.

    Raises:
        ConfigurationError: If it is not a valid one.
    """
    if _host(address) is None:
        raise ConfigurationError(
            f"{key}: {address!r:.200} is not a valid address; write HOST:PORT", field=key, requested=address[:200]
        )


def _host(address: str) -> str | None:
    """Returns the host of `HOST:PORT` or `[IPV6]:PORT`; None if an address has another form."""
    host, separator, port = address.rpartition(":")
    is_valid_host = host != "unix" and (_NAME.fullmatch(host) or _is_bracketed_ipv6(host))
    if not separator or not is_valid_host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        return None
    return host


def _is_bracketed_ipv6(host: str) -> bool:
    if not (host.startswith("[") and host.endswith("]") and host.isascii() and host.isprintable()):
        return False
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True
