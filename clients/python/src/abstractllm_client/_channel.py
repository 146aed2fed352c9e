"""The connection of a client: channel options, retry policy, credentials. They match the server's limits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from abstractllm_client.errors import ConfigurationError

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes that one request or one answer may have; the server's default too."""

Metadata = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Names and values that go with every call, or a function that returns them and is called for each call."""

_KEY = re.compile(r"[a-z0-9_.-]+(?<!-bin)")

_LOAD_BALANCING: Mapping[str, Mapping[str, Any]] = {
    "round_robin": {},
    # Servers send averages: a new one need not be watched for gRPC's ten seconds before it has its weight.
    "weighted_round_robin": {"blackoutPeriod": "2s"},
}
"""The ways in which calls are spread over the addresses of `dns:///name:port`, with gRPC's settings of each."""

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            # gRPC waits as long as the server's `grpc-retry-pushback-ms` says, and gives up where it says -1.
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "10s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
}

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_retries", 1),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # A call that does not fit this buffer is not retried. It also holds the request's metadata.
    ("grpc.per_rpc_retry_buffer_size", MESSAGE_LIMIT + 64 * 1024),
    # A server that is gone without a word is noticed within 40 seconds while a call runs.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a server, and the credentials and options to connect with.

    Args:
        address: `host:port`, `dns:///name:port`, or `unix:/path/of/a/socket`.
        token: A bearer token; sent with every call.
        tls: True for TLS with the system's root certificates; any of the three certificates below imply it.
        root_certificates: PEM of the roots to trust instead of the system's.
        private_key: PEM of the client's key, for mutual TLS.
        certificate_chain: PEM of the client's certificates, for mutual TLS.
        options: Further gRPC channel options; they win over the client's.
        metadata: Names and values that go with every call beside the token, or a function that returns them and is
            called for each call.
        load_balancing: `round_robin` or `weighted_round_robin`.

    Raises:
        ConfigurationError: For an address, token or kind of balancing that cannot be one, or half a key pair.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    tls: bool = False
    root_certificates: bytes | None = field(default=None, repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = field(default=None, repr=False)
    options: Sequence[tuple[str, Any]] = ()
    metadata: Metadata | None = field(default=None, repr=False)
    load_balancing: str = "round_robin"

    def __post_init__(self) -> None:
        if not self.address or self.address.startswith(("http:", "https:")):
            raise ConfigurationError(
                f"address must be host:port or unix:/path, got {self.address!r:.80}",
                field="address",
                limit="host:port or unix:/path",
                requested=f"{self.address!r:.80}",
            )
        if self.load_balancing not in _LOAD_BALANCING:
            kinds = " or ".join(_LOAD_BALANCING)
            raise ConfigurationError(
                f"load_balancing must be {kinds}, got {self.load_balancing!r:.80}",
                field="load_balancing",
                limit=kinds,
                requested=f"{self.load_balancing!r:.80}",
            )
        if self.token is not None and not (self.token and self.token.isascii() and self.token.isprintable()):
            raise ConfigurationError("token must be printable ASCII, and not empty", field="token")
        if not callable(self.metadata):
            self.call_metadata()
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ConfigurationError(
                "private_key and certificate_chain must be given together", field="certificate_chain"
            )

    @property
    def send_limit(self) -> int:
        """Bytes that a request may have."""
        return int(dict(self._options())["grpc.max_send_message_length"])

    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of the next call.

        Raises:
            ConfigurationError: If gRPC cannot send it.
        """
        metadata: Mapping[str, Any] = self.metadata() if callable(self.metadata) else self.metadata or {}
        for key, value in metadata.items():
            if not (_KEY.fullmatch(str(key)) and isinstance(value, str) and value.isascii() and value.isprintable()):
                raise ConfigurationError(
                    f"metadata must be lower-case names with values of printable ASCII, got {key!r:.80}",
                    field="metadata",
                    requested=f"{key!r:.80}",
                )
        authorization = () if self.token is None else (("authorization", f"Bearer {self.token}"),)
        return (*authorization, *(_trace_headers() | dict(metadata)).items())

    def open(self) -> grpc.Channel:
        """Makes a channel for synchronous calls; it connects with the first call."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(self.address, self._options())
        return grpc.secure_channel(self.address, credentials, self._options())

    def open_async(self) -> grpc.aio.Channel:
        """Makes a channel for asynchronous calls on the running event loop; it connects with the first call."""
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.address, self._options())
        return grpc.aio.secure_channel(self.address, credentials, self._options())

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not (self.tls or self.root_certificates or self.private_key):
            return None
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)

    def _options(self) -> list[tuple[str, Any]]:
        policy = {self.load_balancing: _LOAD_BALANCING[self.load_balancing]}
        service_config = json.dumps({"loadBalancingConfig": [policy], **_SERVICE_CONFIG})
        return list({"grpc.service_config": service_config, **dict(OPTIONS), **dict(self.options)}.items())


def _trace_headers() -> dict[str, str]:
    """Returns the headers by which the program's trace goes on at the server, if the program uses OpenTelemetry."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        try:
            from opentelemetry import propagate
        except Exception:  # the environment names a propagator that is not installed: OpenTelemetry has told so
            return headers
        propagate.inject(headers)
    return headers
