"""The server that a command line names: its address, the caller's credentials, and the roots to trust."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from abstractllm_cli._options import usage
from abstractllm_cli._output import note

if TYPE_CHECKING:
    import ssl

    from abstractllm_client import RemoteLLM

_FLAGS = {
    "token": "--token",
    "token_file": "--token-file",
    "tls": "--tls",
    "root_certificates": "--root-certificates",
    "certificate": "--certificate",
    "key": "--key",
}
_HOST = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?(\[[^]]*\]|[^:]*)(?::\w+)?")


@dataclass(frozen=True)
class Server:
    """The address of a server and the credentials to reach it; the fields are those of `RemoteLLM`."""

    address: str
    token: str | None = field(default=None, repr=False)
    tls: bool = False
    root_certificates: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)

    def connect(self, llm: str | None = None, *, timeout: float | None = None) -> RemoteLLM:
        """Makes the client of an LLM on this server; nothing is sent yet.

        Args:
            llm: The LLM's name; the server's default one if absent.
            timeout: Seconds that a call may take.
        """
        from abstractllm_client import RemoteLLM

        if self.token is not None and not self.tls and not _is_on_this_machine(self.address):
            note(f"warning: the token goes to {self.address} in the clear; --tls or --root-certificates encrypts it")
        return RemoteLLM(
            self.address,
            llm or "",
            token=self.token,
            tls=self.tls,
            root_certificates=self.root_certificates,
            certificate_chain=self.certificate_chain,
            private_key=self.private_key,
            timeout=timeout,
        )


def server_of(context: typer.Context) -> Server | None:
    """Returns the server that the command's options describe; None without `--address`.

    The options are read from the context, where they are by name, so that each command need not spell them again.

    Raises:
        typer.BadParameter: Naming the option that contradicts the others, or whose file cannot be used.
    """
    if context.params["address"] is not None:
        return server_at(context)
    # A token in the environment is for the commands that need it; the others ignore it.
    for name, flag in _FLAGS.items():
        if _is_on_command_line(context, name):
            usage("only a server needs this: set --address too", flag)
    return None


def server_at(context: typer.Context) -> Server:
    """Returns the server of a command that always has an address; see `server_of`."""
    roots, certificate, key = (_file(context, name) for name in ("root_certificates", "certificate", "key"))
    chain, private_key = _key_pair(certificate, key)
    return Server(
        context.params["address"],
        token=_token(context),
        tls=context.params["tls"] or roots is not None or chain is not None,
        root_certificates=None if roots is None else _roots(roots),
        certificate_chain=chain,
        private_key=private_key,
    )


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    """Returns whether an option stands on the command line, rather than in the environment or nowhere."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _token(context: typer.Context) -> str | None:
    path: Path | None = context.params["token_file"]
    if path is None:
        token: str | None = context.params["token"]
        name = "--token" if _is_on_command_line(context, "token") else "ABSTRACTLLM_TOKEN"
    else:
        if _is_on_command_line(context, "token"):
            usage("the token is in --token-file: leave out one of the two", "--token")
        token, name = path.read_bytes().decode(errors="replace").strip(), "--token-file"
    if token is not None and not (token and token.isascii() and token.isprintable()):
        usage("a token is one line of printable ASCII", name)
    return token


def _file(context: typer.Context, name: str) -> Path | None:
    path: Path | None = context.params[name]
    if path is not None and not path.is_file():
        usage("must be a file that can be read more than once", _FLAGS[name])
    return path


# gRPC reports PEM that it cannot use as a server that cannot be reached, so it is tried beforehand.


def _roots(path: Path) -> bytes:
    _try(lambda tls: tls.load_verify_locations(path), "holds no certificates in PEM", "--root-certificates")
    return path.read_bytes()


def _key_pair(certificate: Path | None, key: Path | None) -> tuple[bytes | None, bytes | None]:
    if certificate is None and key is None:
        return None, None
    if key is None:
        usage("its key is missing: set --key too", "--certificate")
    if certificate is None:
        usage("its certificate is missing: set --certificate too", "--key")
    _try(lambda tls: tls.load_verify_locations(certificate), "holds no certificate in PEM", "--certificate")
    _try(
        lambda tls: tls.load_cert_chain(certificate, key, password=""),
        "holds no key in PEM, without a password, that belongs to --certificate",
        "--key",
    )
    return certificate.read_bytes(), key.read_bytes()


def _try(use: Callable[[ssl.SSLContext], None], refusal: str, name: str) -> None:
    import ssl

    try:
        use(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except (ssl.SSLError, ValueError) as error:
        usage(f"{refusal} ({error})", name)


def _is_on_this_machine(address: str) -> bool:
    """Returns whether a gRPC target is a unix socket or a loopback address; a name but `localhost` may be anywhere."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = _HOST.fullmatch(address)
    if host is None:
        return False
    try:
        return host[1] == "localhost" or ipaddress.ip_address(host[1].strip("[]")).is_loopback
    except ValueError:
        return False
