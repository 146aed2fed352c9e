"""The environment's variables that HTTP clients read: a bad one is refused by name, before a client or an SDK trips."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from abstractllm.errors import ConfigurationError

__all__ = ["check_environment"]

_SCHEMES = ("http", "https", "socks5", "socks5h")


def check_environment() -> None:
    """Checks the variables for proxies and certificates. A proxy is not repeated, as it may hold a password.

    Raises:
        ConfigurationError: If one of them cannot be honoured; it names the variable.
    """
    no_proxy = _variable("no_proxy")
    entries = [entry.strip() for entry in os.environ.get(no_proxy, "").split(",")]
    for entry in filter(None, entries):
        if rule := _exception_fault(entry):
            raise _bad(no_proxy, f"{rule}, got {entry[:80]!r}")
    if "*" not in entries:
        for scheme in ("http", "https", "all"):
            variable = _variable(f"{scheme}_proxy")
            if (address := os.environ.get(variable)) and (rule := _proxy_fault(address)):
                raise _bad(variable, rule)
    _check_certificates()


def _variable(name: str) -> str:
    """Returns the variable's name in the case in which it is set; the lower case counts first, as in every client."""
    return name if name in os.environ else name.upper()


def _bad(variable: str, rule: str) -> ConfigurationError:
    return ConfigurationError(f"the environment variable {variable} {rule}", field=variable)


def _proxy_fault(address: str) -> str:
    """Returns what is wrong with a proxy's address; nothing for a good one."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is not a valid address"
    if parts.scheme not in _SCHEMES:
        return f"must be an address of the schemes {', '.join(_SCHEMES)}, got {parts.scheme[:20]!r}"
    if not host or port == 0 or not re.fullmatch(r"[!-~]+", address):
        return "is not a valid address"
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        return "names a SOCKS proxy, for which the package socksio is missing: pip install socksio"
    return ""


def _exception_fault(entry: str) -> str:
    """Returns what is wrong with an entry of `NO_PROXY`; nothing for a good one."""
    if entry.startswith("["):
        return "must hold IPv6 addresses without brackets"
    try:
        is_network = "/" in entry and ipaddress.ip_network(entry, strict=False).version == 6
    except ValueError:
        is_network = False
    if is_network:
        return "must hold IPv6 addresses one by one: networks of IPv6 are not supported"
    return "" if re.fullmatch(r"[^\s\[\]\x00-\x1f\x7f]+", entry) else "must hold host names and addresses"


def _check_certificates() -> None:
    if file := os.environ.get("SSL_CERT_FILE"):
        if not Path(file).is_file():
            raise _bad("SSL_CERT_FILE", f"names a file that is not there: {file[:200]!r}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
        except OSError as error:
            raise _bad("SSL_CERT_FILE", f"names a file without certificates: {file[:200]!r}") from error
    elif (folders := os.environ.get("SSL_CERT_DIR")) and not any(
        Path(folder).is_dir() for folder in folders.split(os.pathsep)
    ):
        raise _bad("SSL_CERT_DIR", f"names a folder that is not there: {folders[:200]!r}")
    if (log := os.environ.get("SSLKEYLOGFILE")) and not Path(log).parent.is_dir():
        raise _bad("SSLKEYLOGFILE", f"names a file in a folder that is not there: {log[:200]!r}")
