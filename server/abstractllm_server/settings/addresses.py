"""Addresses to listen on."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from abstractllm.errors import ConfigurationError

__all__ = ["is_local"]


def is_local(listen: str) -> bool:
    """Returns whether only this machine can connect to an address.

    Raises:
        ConfigurationError: If the text is not a valid address.
    """
    if listen.startswith("unix:") and Path(listen.removeprefix("unix:").removeprefix("//")).name:
        return True
    host, separator, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_valid_host = host not in ("", "unix") and (bracketed or ":" not in host)
    if not separator or not is_valid_host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
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
