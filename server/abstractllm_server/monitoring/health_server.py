"""The port for `grpc.health.v1` alone: plain, without credentials, in threads of its own.

So it answers while the event loop is blocked. grpc's server with threads gives a thread to each call whose headers have
come, for as long as it lasts: here each call has a deadline of its own for its message and for the reading of its
answer, the oldest call without a message makes room for a new one, and the number of watchers is bounded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

from abstractllm_server.monitoring.status_board import StatusBoard
from abstractllm_server.transport.connections import Connections, monitoring_limit

__all__ = ["HealthServer"]

MessageT = TypeVar("MessageT", bound=Message)

_SERVICE = "grpc.health.v1.Health"
_WATCHERS = 64
"""Calls of Watch at a time."""
_ANSWERING = 32
"""Threads for the other calls."""
_CALLS = 256
"""Calls at a time, those that wait for a thread included; grpc refuses further ones."""
_CONNECTIONS = 128
"""Connections, as far as there are descriptors; beyond three quarters of it those are closed that have no call with a
message."""
_MESSAGE_BYTES = 4096
_MESSAGE_TIMEOUT, _READ_TIMEOUT = 3.0, 10.0
"""Seconds for a call's message to come, and for its answer to be taken."""
_LONGEST_WAIT = 1.0
"""Seconds after which a watcher looks whether its caller has left."""
_REAP_INTERVAL = 0.5
_SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN
_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_metadata_size", 4096),
    ("grpc.absolute_max_metadata_size", 8192),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.server_handshake_timeout_ms", 3_000),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.ping_timeout_ms", 8_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class _Call:
    """One call that may have to be ended from outside.

    Args:
        context: The call, as grpc has it.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self.has_message = False
        self.deadline: float | None = time.monotonic() + _MESSAGE_TIMEOUT
        """The moment at which it is cancelled; None while it waits for a change."""

    def cancel(self) -> None:
        """Ends the call, from any thread."""
        self.context.cancel()  # type: ignore[no-untyped-call]


class _Calls:
    """The calls that run, for those who end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[_Call, None] = {}
        self._watchers = 0

    @contextmanager
    def running(self, context: grpc.ServicerContext) -> Iterator[_Call]:
        """Holds a call that runs."""
        call = _Call(context)
        with self._lock:
            self._calls[call] = None
        try:
            yield call
        finally:
            with self._lock:
                self._calls.pop(call, None)

    @contextmanager
    def watching(self) -> Iterator[bool]:
        """Holds a watcher's place; gives False if there is none."""
        with self._lock:
            has_place = self._watchers < _WATCHERS
            self._watchers += has_place
        try:
            yield has_place
        finally:
            with self._lock:
                self._watchers -= has_place

    def cancel_late(self) -> None:
        """Cancels the calls that are beyond their deadlines."""
        now = time.monotonic()
        with self._lock:
            late = [call for call in self._calls if call.deadline is not None and call.deadline < now]
        for call in late:
            call.cancel()

    def make_room(self) -> None:
        """Cancels the oldest call without a message."""
        with self._lock:
            oldest = next((call for call in self._calls if not call.has_message), None)
            if oldest is not None:
                del self._calls[oldest]
        if oldest is not None:
            oldest.cancel()


class _Threads(ThreadPoolExecutor):
    """Threads for calls; where all are busy, a call that waits for its message gives its thread up."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__(_ANSWERING + _WATCHERS, thread_name_prefix="health")
        self._calls = calls
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Runs a call in a thread, as soon as one is free."""
        with self._lock:
            self._unfinished += 1
            is_crowded = self._unfinished > self._max_workers
        future = super().submit(function, *arguments, **options)
        future.add_done_callback(self._finish)
        if is_crowded:
            self._calls.make_room()
        return future

    def _finish(self, _: Future[Any]) -> None:
        with self._lock:
            self._unfinished -= 1


class HealthServer:
    """Answers `Check`, `List` and `Watch`.

    Args:
        board: The statuses of the services.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._calls = _Calls()
        self._threads = _Threads(self._calls)
        self._connections = Connections(monitoring_limit(_CONNECTIONS))
        self._stopped = threading.Event()
        options = [*_OPTIONS, ("grpc.max_allowed_incoming_connections", self._connections.limit)]
        self.server = grpc.server(self._threads, options=options, maximum_concurrent_rpcs=_CALLS)
        """The server, which is to be given its port."""
        # Each as a stream: a handler of a unary call would not be called before the message has come.
        methods = {"Check": self._check, "List": self._list, "Watch": self._watch}
        handlers = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))

    def start(self, ports: frozenset[int]) -> None:
        """Begins to answer on the ports that the server was given."""
        self.server.start()
        self._connections.start(ports)

    def run(self) -> None:
        """Cancels calls that are beyond their deadlines, in the calling thread, until `stop`."""
        while not self._stopped.wait(_REAP_INTERVAL):
            self._calls.cancel_late()

    def stop(self) -> None:
        """Ends all calls and closes the port."""
        self._stopped.set()
        self.server.stop(0)
        self._connections.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._running(context, messages, HealthCheckRequest()) as (call, request):
            status = self._board.statuses.get(request.service)
            if status is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
            yield self._answer(call, HealthCheckResponse(status=status))

    def _list(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._running(context, messages, HealthListRequest()) as (call, _):
            statuses = {name: HealthCheckResponse(status=status) for name, status in self._board.statuses.items()}
            yield self._answer(call, HealthListResponse(statuses=statuses))

    def _watch(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._running(context, messages, HealthCheckRequest()) as (call, request):
            service = request.service
            with self._calls.watching() as has_place:
                if not has_place:
                    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {_WATCHERS} watchers already")
                status = self._board.statuses.get(service)
                yield self._answer(call, _as_watched(status))
                while context.is_active() and not self._board.is_closed:
                    call.deadline = None
                    before, status = status, self._board.wait_for_change(service, status, _LONGEST_WAIT)
                    if status != before:
                        yield self._answer(call, _as_watched(status))

    @contextmanager
    def _running(
        self, context: grpc.ServicerContext, messages: Iterator[bytes], message: MessageT
    ) -> Iterator[tuple[_Call, MessageT]]:
        """Holds a call; reads its message into `message`, and its connection is in use from then on."""
        with self._calls.running(context) as call:
            self._read(call, messages, message)
            peer = context.peer()
            self._connections.call_began(peer)
            try:
                yield call, message
            finally:
                self._connections.call_ended(peer)

    def _read(self, call: _Call, messages: Iterator[bytes], message: Message) -> None:
        data = next(messages, None)
        call.has_message = True
        if data is None:
            call.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
        try:
            message.ParseFromString(data)
        except DecodeError:
            call.context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is malformed")

    def _answer(self, call: _Call, message: Message) -> bytes:
        """Encodes an answer, which its caller has to take in time."""
        call.deadline = time.monotonic() + _READ_TIMEOUT
        return message.SerializeToString()


def _as_watched(status: Any) -> HealthCheckResponse:
    return HealthCheckResponse(status=_SERVICE_UNKNOWN if status is None else status)
