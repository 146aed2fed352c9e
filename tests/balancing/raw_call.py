"""One call over HTTP/2 itself: gRPC's Python client keeps the trailer with the load for its own balancer."""

from __future__ import annotations

import base64
import socket
from collections.abc import Mapping
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events

from abstractllm_server.convert.load_reports import LoadReport

TRAILER = "endpoint-load-metrics-bin"


def call(address: str, path: str, message: bytes, metadata: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Makes a call, and returns its trailers.

    Args:
        address: `HOST:PORT`.
        path: `/SERVICE/METHOD`.
        message: The encoded request.
        metadata: The metadata.
    """
    host, _, port = address.rpartition(":")
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": address,
        "content-type": "application/grpc",
        "te": "trailers",
        **(metadata or {}),
    }
    with socket.create_connection((host, int(port)), timeout=30) as link:
        connection.initiate_connection()
        connection.send_headers(1, list(headers.items()))
        connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        trailers: dict[str, list[str]] = {}
        while True:
            link.sendall(connection.data_to_send())
            data = link.recv(65536)
            assert data, "the server closed the connection"
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                        for name, value in event.headers or ():
                            trailers.setdefault(str(name), []).append(unquote(str(value)))
                    case h2.events.DataReceived():
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                    case h2.events.StreamEnded():
                        return trailers


def report(trailers: Mapping[str, list[str]]) -> LoadReport | None:
    """Returns the load report in trailers; None if there is none."""
    values = trailers.get(TRAILER)
    if values is None:
        return None
    (value,) = values
    return LoadReport.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))
