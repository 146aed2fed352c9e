"""The limits of a connection; the defaults of our clients match them."""

from __future__ import annotations

from abstractllm.field_limits import MESSAGE_BYTES

__all__ = ["MAX_MESSAGE_BYTES", "server_options"]

MAX_MESSAGE_BYTES = MESSAGE_BYTES
"""The size of a request or an answer, after decompression."""

_CONCURRENT_STREAMS = 128
"""Calls on one connection, beside those that the LLMs run and queue: further ones wait in the client."""
_PENDING_CALLS, _MOST_PENDING_CALLS = 20_000, 24_000
"""Calls whose headers have arrived and that nothing has looked at yet. Each takes 15 kB in grpc; beyond the first
number grpc ends some, beyond the second all, as a bare CANCELLED."""
_HANDSHAKE_MS = 10_000
"""Milliseconds that a connection has for TLS and the greetings of HTTP/2."""

_KEEPALIVE_MS = 10_000
_PING_TIMEOUT_MS = 8_000


def server_options(capacity: int, connections: int, max_age: float | None = None) -> list[tuple[str, int]]:
    """Returns the channel arguments of the server (https://grpc.github.io/grpc/core/group__grpc__arg__keys.html).

    Args:
        capacity: Requests that the LLMs run and queue at most. A connection may have more calls than that: otherwise
            the surplus would wait in the clients, which would never hear OVERLOADED.
        connections: Connections that may be open; further ones are closed as soon as they are made.
        max_age: Seconds, more or less a tenth, after which a connection takes no more calls; it closes when those that
            it has are over, for gRPC's own grace has no end. Absent, it may last for ever.
    """
    return [
        *([("grpc.max_connection_age_ms", int(max_age * 1000))] if max_age is not None else ()),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", _CONCURRENT_STREAMS + capacity),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        # grpc's protection refuses calls of a client that makes use of all that it may have: it counts those that have
        # just ended. What it protects from, streams that are reset at once, has a connection closed here.
        ("grpc.http.overload_protection", 0),
        # grpc lets each stream send as much as the connection could carry, up to megabytes that nobody has asked for; a
        # message that is read is let through whole in any case.
        ("grpc.http2.bdp_probe", 0),
        # A second server on the same port must fail, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING_CALLS),
        # A client that froze is noticed within 20 seconds; the ping's own timeout is the one that works.
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
