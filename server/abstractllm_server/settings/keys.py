"""The keys of the configuration file, and the rules that concern several of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from abstractllm.config import Bytes, ConfigModel, Seconds
from abstractllm.errors import ConfigurationError
from abstractllm_server.settings.addresses import check_port_address, is_local

__all__ = ["LoadReportSettings", "MetricsSettings", "Role", "ServerSettings", "TlsSettings"]

_KIND_OF_NAME = re.compile(r"(cn|dns|uri|email|ip)\s*[:=]", re.IGNORECASE)
_LLM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLES = {"monitoring": "ABSTRACTLLM_MONITORING", "health": "ABSTRACTLLM_HEALTH"}
"""The keys whose default is a variable of the environment."""


class Role(StrEnum):
    """A caller's rights."""

    INFERENCE = "inference"
    """The right to generate, to count tokens, and to list LLMs and their capabilities."""
    ADMIN = "admin"
    """All rights."""


class TlsSettings(ConfigModel):
    """The server's certificate, and the certificates that it takes from callers."""

    certificate: Path
    """PEM of the certificate and the chain above it."""
    key: Path
    """PEM of its key, not encrypted."""
    client_ca: Path | None = None
    """PEM of the roots of callers' certificates; if set, every caller must bring a certificate."""
    subjects: dict[str, Role] = Field(default_factory=dict)
    """The role of each name in callers' certificates; see `abstractllm_server.security.certificate_names`."""

    @property
    def files(self) -> tuple[Path, Path, Path | None]:
        """The files of the certificate, the key and the roots."""
        return self.certificate, self.key, self.client_ca


class MetricsSettings(ConfigModel):
    """The attributes of metrics that callers decide about: each of their values is a series that is kept for good."""

    labels: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], ...], Field(max_length=8)] = ()
    """The keys of callers' labels whose values are attributes of metrics."""
    callers: bool = False
    """Makes the caller's name an attribute of metrics."""


class LoadReportSettings(ConfigModel):
    """The ways in which a server tells its callers how much it has to do, for those of them who balance."""

    trailers: bool = True
    """Sends the load with the end of each call."""
    stream: bool = True
    """Answers `xds.service.orca.v3.OpenRcaService`, which sends the load over and over."""
    without_credentials: bool = False
    """Lets everybody have that stream: gRPC's balancers bring no token of their own for it."""
    interval: Annotated[Seconds, Field(ge=0.1, le=3600)] = 1.0
    """Seconds between two reports of a stream, at least."""


class ServerSettings(ConfigModel):
    """The settings of a server; their names are the keys of the configuration file."""

    listen: str = "127.0.0.1:50051"
    """`HOST:PORT` (port 0 takes a free one), `[IPV6]:PORT`, or `unix:///PATH`."""
    insecure: bool = False
    """Allows to listen beyond this machine without credentials."""
    tls: TlsSettings | None = None
    """Certificates; plain text if absent."""
    tokens: Path | None = None
    """The file of the tokens that are accepted; see `abstractllm_server.security.credentials.TokenFile`."""
    default: str | None = None
    """The LLM meant by an empty name; the first one if absent."""
    llms: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    preload: tuple[str, ...] | None = None
    """The LLMs to load at start; the default one if absent."""
    max_loaded: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Local models that may be loaded at a time; no limit if absent."""
    memory_budget: Bytes | None = None
    """Bytes that local models may take together: weights, and caches of keys and values; no limit if absent."""
    reflection: bool = True
    grace: Annotated[Seconds, Field(le=600)] = 20.0
    """Seconds that running requests have to end after SIGTERM."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Connections that may be open, if there are file descriptors for them; unused ones make room for new ones."""
    max_connection_age: Annotated[Seconds, Field(ge=1)] | None = None
    """Seconds after which a caller is asked to connect anew, more or less a tenth; calls that run go on until they
    end. No limit if absent."""
    read_timeout: Annotated[Seconds, Field(le=3600)] = 20.0
    """Seconds that the message of a call may take to arrive; then the call ends with TIMEOUT."""
    write_timeout: Annotated[Seconds, Field(le=3600)] = 30.0
    """Seconds that an answer waits for a caller who does not read; then the call ends with TIMEOUT."""
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"
    """The form of log records: lines for people, or a JSON object a line."""
    monitoring: str | None = Field(default_factory=lambda: os.environ.get(_VARIABLES["monitoring"]) or None)
    """`HOST:PORT` of `/metrics`, `/livez` and `/readyz`, over plain HTTP and without credentials; the environment's
    ABSTRACTLLM_MONITORING is the default, and none without it."""
    health: str | None = Field(default_factory=lambda: os.environ.get(_VARIABLES["health"]) or None)
    """`HOST:PORT` of `grpc.health.v1` alone, plain and without credentials; the environment's ABSTRACTLLM_HEALTH is the
    default, and none without it."""
    loop_timeout: Annotated[Seconds, Field(ge=0.5, le=3600)] = 5.0
    """Seconds that the event loop may be blocked; then the ports for monitoring say that the server is not alive."""
    metrics: MetricsSettings = MetricsSettings()
    load_reports: LoadReportSettings = LoadReportSettings()

    def check(self) -> None:
        """Checks the rules that concern several keys.

        Raises:
            ConfigurationError: Naming the key; the first one of several.
        """
        for fault in self.faults():
            raise fault

    def faults(self) -> Iterator[ConfigurationError]:
        """Yields what breaks the rules that concern several keys."""
        if not self.llms:
            yield ConfigurationError("llms: at least one LLM must be configured", field="llms")
        for name in self.llms:
            if not _LLM_NAME.fullmatch(name):
                yield ConfigurationError(
                    f"llms: {name[:80]!r} is not a valid name: it may have up to 64 letters, digits, dots, _ and -",
                    field=f"llms.{name}",
                )
        for key, names in (("default", (self.default,) if self.default else ()), ("preload", self.preload or ())):
            for name in names:
                if name not in self.llms:
                    known = ", ".join(self.llms)
                    yield ConfigurationError(f"{key}: no LLM is named {name!r:.80}; there are {known}", field=key)
        yield from self._tls_faults(self.tls) if self.tls else ()
        yield from self._listen_faults()
        yield from self._port_faults()

    def _tls_faults(self, tls: TlsSettings) -> Iterator[ConfigurationError]:
        if tls.subjects and not tls.client_ca:
            yield ConfigurationError(
                "tls.subjects: callers bring certificates only if tls.client_ca is set", field="tls.subjects"
            )
        if tls.client_ca and not tls.subjects and not self.tokens:
            yield ConfigurationError(
                "tls.client_ca: callers need roles: set tls.subjects for their certificates, or tokens",
                field="tls.client_ca",
            )
        if self.listen.startswith("unix:"):
            yield ConfigurationError("tls: a unix socket cannot have TLS", field="tls")
        for name in tls.subjects:
            match = _KIND_OF_NAME.match(name)
            if not name or (match and match[0] != f"{match[1].lower()}:"):
                yield ConfigurationError(
                    f"tls.subjects: {name[:80]!r} is the name of nobody; write a name as it stands in the certificate, "
                    "or cn:NAME, dns:NAME, uri:NAME, email:NAME or ip:ADDRESS",
                    field=f"tls.subjects.{name}",
                )

    def _listen_faults(self) -> Iterator[ConfigurationError]:
        try:
            is_open_to_others = not is_local(self.listen)
        except ConfigurationError as fault:
            yield fault
            return
        if is_open_to_others and not self.insecure and not self.has_credentials:
            yield ConfigurationError(
                f"listen: {self.listen} can be reached from other machines and no credentials are configured; "
                "set tokens or tls.client_ca, listen on 127.0.0.1 or a unix socket, or use --insecure",
                field="listen",
                requested=self.listen,
            )

    def _port_faults(self) -> Iterator[ConfigurationError]:
        users: dict[str, str] = {} if self.listen.endswith(":0") else {self.listen: "listen"}
        for key, address in ((self.source("monitoring"), self.monitoring), (self.source("health"), self.health)):
            if address is None:
                continue
            try:
                check_port_address(address, key)
            except ConfigurationError as fault:
                yield fault
                continue
            if user := users.get(address):
                yield ConfigurationError(
                    f"{key}: {address} is the address of {user}; each needs its own", field=key, requested=address
                )
            if not address.endswith(":0"):
                users[address] = key

    def source(self, key: str) -> str:
        """Returns what a value comes from: its key, or the variable of the environment that is the key's default."""
        return key if key in self.model_fields_set else _VARIABLES.get(key, key)

    @property
    def has_credentials(self) -> bool:
        """True if callers are asked for a token or a certificate."""
        return self.tokens is not None or (self.tls is not None and self.tls.client_ca is not None)
