"""Load reports by gRPC's own protocol, ORCA: in the trailers of calls, and as a stream for who asks for one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import grpc
from grpc import aio

from abstractllm.call_record import CallRecord
from abstractllm.errors import OverloadedError
from abstractllm_server.convert.load_reports import LOAD_SERVICE, LoadReport, LoadReportRequest
from abstractllm_server.telemetry.current import current_record
from abstractllm_server.telemetry.server_load import Load, ServerLoad

__all__ = ["LoadReports", "add_load_reports"]

_TRAILER = "endpoint-load-metrics-bin"
"""The trailer in which gRPC's clients look for a report."""
_FRESH_SECONDS = 0.05
"""Seconds for which a report is sent again: it is made of all running calls."""
_STREAMS, _STREAMS_PER_CONNECTION = 2048, 4
"""Streams of reports; a client of gRPC has one on each connection."""
_LONGEST_INTERVAL = 3600.0


class LoadReports:
    """Makes reports of the server's load, and answers `OpenRcaService`.

    Args:
        load: The load.
        least_interval: Seconds between two reports of a stream at least.
    """

    def __init__(self, load: ServerLoad, least_interval: float) -> None:
        self._load = load
        self._least_interval = least_interval
        self._latest: tuple[bytes, float] | None = None
        self._streams = Counter[str]()

    def trailers(self, record: CallRecord) -> tuple[tuple[str, bytes], ...]:
        """Returns the trailers with the load, in which a call that is about to end is counted."""
        self._load.ended(record)
        now = time.monotonic()
        if self._latest is None or now - self._latest[1] > _FRESH_SECONDS:
            self._latest = _report(self._load.measure()).SerializeToString(), now
        return ((_TRAILER, self._latest[0]),)

    async def StreamCoreMetrics(
        self, request: Any, context: aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[Any, None]:
        """Answers with a report now, and then at the interval that the request names, though not too often.

        Raises:
            OverloadedError: If there are too many such streams.
        """
        peer = current_record().peer
        if self._streams[peer] >= _STREAMS_PER_CONNECTION or self._streams.total() >= _STREAMS:
            raise OverloadedError(
                f"there may be {_STREAMS} streams of load reports, and {_STREAMS_PER_CONNECTION} on one connection",
                limit=_STREAMS_PER_CONNECTION,
            )
        wanted = request.report_interval.seconds + request.report_interval.nanos / 1e9
        interval = min(max(wanted, self._least_interval), _LONGEST_INTERVAL)
        self._streams[peer] += 1
        try:
            while True:
                yield _report(self._load.measure())
                await asyncio.sleep(interval)
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]


def add_load_reports(reports: LoadReports, server: Any) -> None:
    """Lets a server, or the table of methods that stands for it, answer `OpenRcaService`."""
    handler = grpc.unary_stream_rpc_method_handler(
        reports.StreamCoreMetrics,
        request_deserializer=LoadReportRequest.FromString,
        response_serializer=LoadReport.SerializeToString,
    )
    server.add_registered_method_handlers(LOAD_SERVICE, {"StreamCoreMetrics": handler})


def _report(load: Load) -> Any:
    """Returns the message of a load. What is 0 is absent, and a client takes what is absent for unknown."""
    return LoadReport(
        cpu_utilization=load.cpu,
        application_utilization=load.utilization,
        rps_fractional=load.answered,
        eps=load.failed,
        utilization={"kv_cache": load.kv_cache_usage},
        named_metrics={
            "running": load.running,
            "waiting": load.waiting,
            "running_limit": load.running_limit,
        },
    )
