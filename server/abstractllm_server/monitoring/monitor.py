"""Everything that is asked from outside whether the server lives: the ports for monitoring, and what they know."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping

from abstractllm.errors import ConfigurationError
from abstractllm.registry import LLMRegistry
from abstractllm_server.monitoring.health_server import HealthServer
from abstractllm_server.monitoring.heartbeat import LoopHeartbeat
from abstractllm_server.monitoring.http_server import HttpServer, RenderMetrics
from abstractllm_server.monitoring.status_board import Status, StatusBoard
from abstractllm_server.settings import ServerSettings
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.transport.listener import Listener

__all__ = ["Monitor"]

logger = logging.getLogger("abstractllm.server")

RunThread = Callable[[str, Callable[[], None]], None]


class Monitor:
    """The heartbeat of the event loop, and the ports that the settings name.

    It is started before the server listens, and stopped after everything else, so that a server which starts or drains
    can be asked, too.

    Args:
        settings: The addresses of the ports.
        registry: The LLMs.
        statuses: Returns the status of each service, as the event loop keeps them.
        render: Renders the metrics; None if there are none.

    Attributes:
        heartbeat: The heartbeat of the event loop.
        health_address: The address of the port for `grpc.health.v1`; empty without one.
        http_address: The address of the port for HTTP; empty without one.
    """

    def __init__(
        self,
        settings: ServerSettings,
        registry: LLMRegistry,
        statuses: Callable[[], Mapping[str, Status]],
        render: RenderMetrics | None,
    ) -> None:
        self.heartbeat = LoopHeartbeat(settings.loop_timeout)
        self.health_address = self.http_address = ""
        self._settings = settings
        self._registry = registry
        self._render = render
        self._board = StatusBoard(statuses, self.heartbeat)
        self._health: HealthServer | None = None
        self._http: HttpServer | None = None

    def start(self, run_thread: RunThread) -> None:
        """Begins to answer; called in the event loop.

        Args:
            run_thread: Runs a function in a thread under a name, and again if it fails.

        Raises:
            ConfigurationError: If an address cannot be listened on.
        """
        self.heartbeat.start()
        try:
            self._open_ports(run_thread)
        except ConfigurationError:
            self.stop()
            raise

    def _open_ports(self, run_thread: RunThread) -> None:
        if self._settings.health is not None:
            self._health = HealthServer(self._board)
            listener = Listener(self._health.server, self._settings.health, key=self._settings.source("health"))
            self._health.start(listener.ports)
            run_thread("health calls", self._health.run)
            self.health_address = listener.address
            logger.info("health checks on %s", self.health_address)
        if self._settings.monitoring is not None:
            sockets = _HttpSockets()
            self._http = HttpServer(sockets.bound, self._board, self._render)
            listener = Listener(sockets, self._settings.monitoring, key=self._settings.source("monitoring"))
            run_thread("monitoring", self._http.run)
            self.http_address = listener.address
            logger.info("monitoring on http://%s", self.http_address)

    def stop(self) -> None:
        """Closes the ports; called in the event loop."""
        self.heartbeat.stop()
        self._board.close()
        if self._health is not None:
            self._health.stop()
        if self._http is not None:
            self._http.stop()

    def measurements(self) -> Iterator[Measurement]:
        """Yields the lag of the event loop, and the silence of each local LLM."""
        yield Measurement("abstractllm.server.loop.lag", self.heartbeat.lag)
        for llm in tuple(self._registry):
            if llm.engine_statistics is not None:
                yield Measurement("abstractllm.engine.silence", llm.silence, {"abstractllm.llm": llm.name})


class _HttpSockets:
    """Listens on addresses as a gRPC server does."""

    def __init__(self) -> None:
        self.bound: list[socket.socket] = []

    def add_insecure_port(self, address: str) -> int:
        """Listens on an address, and returns the port.

        Raises:
            RuntimeError: If the address cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            family, kind, protocol, _, name = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            one = socket.socket(family, kind, protocol)
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6 and host != "::":
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(name)
                one.listen()
            except BaseException:
                one.close()
                raise
        except OSError as error:
            raise RuntimeError(str(error)) from error
        self.bound.append(one)
        return int(one.getsockname()[1])
