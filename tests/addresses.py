"""The addresses that this machine has."""

import socket


def has_ipv6() -> bool:
    """Returns True if a server can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
