"""The statuses of the services as those see them who ask on the ports for monitoring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from grpc_health.v1.health_pb2 import HealthCheckResponse

from abstractllm_server.monitoring.heartbeat import LoopHeartbeat

__all__ = ["Status", "StatusBoard"]

Status: TypeAlias = int
"""A value of `HealthCheckResponse.ServingStatus`."""

_INTERVAL = 0.2
"""Seconds after which a change is noticed."""
_SERVING, _NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


class StatusBoard:
    """Every service's status, for any thread: what the event loop last said, unless it is blocked.

    Args:
        read: Returns the statuses that the event loop keeps: of `liveness`, of `""`, which stands for the default LLM,
            and of `llm/` with the name of each LLM.
        heartbeat: The event loop's.
    """

    def __init__(self, read: Callable[[], Mapping[str, Status]], heartbeat: LoopHeartbeat) -> None:
        self._read = read
        self._heartbeat = heartbeat
        self._closed = threading.Event()

    @property
    def statuses(self) -> Mapping[str, Status]:
        """The statuses as they are now."""
        statuses = self._read()
        return statuses if self._heartbeat.is_alive else dict.fromkeys(statuses, _NOT_SERVING)

    @property
    def is_closed(self) -> bool:
        """True once the server ends."""
        return self._closed.is_set()

    def is_serving(self, service: str) -> bool | None:
        """Tells whether a service is SERVING; None if there is no such service."""
        status = self.statuses.get(service)
        return None if status is None else status == _SERVING

    def wait_for_change(self, service: str, status: Status | None, timeout: float) -> Status | None:
        """Waits until a service's status is another one, or the time is over, or the server ends.

        Args:
            service: The service.
            status: Its status until now; None if there is no such service.
            timeout: Seconds.

        Returns:
            The status then.
        """
        end = time.monotonic() + timeout
        while (now := self.statuses.get(service)) == status and time.monotonic() < end:
            if self._closed.wait(_INTERVAL):
                break
        return now

    def close(self) -> None:
        """Lets nobody wait any longer."""
        self._closed.set()
