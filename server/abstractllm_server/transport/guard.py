"""The guard: the one way of every call, from its headers to its status."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc import aio

from abstractllm.call_record import CallRecord
from abstractllm.errors import (
    AbstractLLMError,
    AuthenticationError,
    ErrorReason,
    InternalError,
    InvalidRequestError,
    ServerShuttingDownError,
    UnsupportedFeatureError,
    cause_chain,
)
from abstractllm.field_limits import FIELD_LIMITS
from abstractllm_server.convert.ceilings import check_ceilings
from abstractllm_server.convert.errors import status_of
from abstractllm_server.convert.wire_format import check_field_count
from abstractllm_server.security.access_control import AccessControl
from abstractllm_server.security.identity import Identity, MethodForbiddenError
from abstractllm_server.telemetry.current import set_current_record
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.observer import CallObserver
from abstractllm_server.transport.abort import abort
from abstractllm_server.transport.call import GuardedCall
from abstractllm_server.transport.connections import Connections, Strike
from abstractllm_server.transport.limits import MAX_MESSAGE_BYTES
from abstractllm_server.transport.methods import Method, MethodTable
from abstractllm_server.transport.waiting_calls import WaitingCalls

__all__ = ["Guard"]

logger = logging.getLogger("abstractllm.server")

_CANCELLATION_TIMEOUT = 0.5
"""Seconds that calls may take to end once they are cancelled."""
_ALWAYS_ANSWERED = ("/grpc.health.", "/grpc.reflection.", "/xds.service.orca.")
"""Services of gRPC itself, which keep answering while the server drains, and whose calls it does not wait for."""

MakeTrailers = Callable[[CallRecord], tuple[tuple[str, str | bytes], ...]]


class Guard(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in its stubs alone
    """Handles every call of every service, from the moment that its headers arrive.

    It knows the caller before it takes the call's message, reads and writes under time limits, bounds what waits, and
    turns the errors that handlers raise into statuses: handlers contain no `try`. It keeps the record of each call,
    and tells the observers of its begin and its end, once each.

    Args:
        access: The check of callers.
        connections: The keeper of the connections.
        read_timeout: Seconds that a message may take to arrive.
        write_timeout: Seconds that an answer, or one message of a stream, may wait for its reader.
        observers: Told of each call.
        trailers: Makes the trailers that every answer of the contract's services ends with, errors included, just
            before it ends; none if absent.

    Attributes:
        methods: The methods of all services; unknown ones are refused.
    """

    def __init__(
        self,
        access: AccessControl,
        connections: Connections,
        *,
        read_timeout: float,
        write_timeout: float,
        observers: Sequence[CallObserver] = (),
        trailers: MakeTrailers | None = None,
    ) -> None:
        self.methods = MethodTable()
        self._make_trailers = trailers
        self._access = access
        self._observers = tuple(observers)
        self._connections = connections
        self._waiting = WaitingCalls(connections, read_timeout, write_timeout)
        self._handlers: dict[str, Any] = {}
        self._is_draining = False
        self._latest: GuardedCall | None = None
        self._running: set[GuardedCall] = set()
        """The calls that were admitted, but for those of services that keep answering while the server drains."""

    def set_timeouts(self, read_timeout: float, write_timeout: float) -> None:
        """Sets the timeouts of messages that begin to be read or written from now on; see `Guard`."""
        self._waiting.set_timeouts(read_timeout, write_timeout)

    @property
    def running(self) -> int:
        """The number of calls that run."""
        return len(self._running)

    def measurements(self) -> Iterator[Measurement]:
        """Yields the calls that wait for their message, and the bytes that are held of requests and answers."""
        yield Measurement("abstractllm.server.calls.pending", self._waiting.pending)
        request_bytes = sum(call.record.request_bytes for call in tuple(self._running))
        yield Measurement("abstractllm.server.held", request_bytes, {"direction": "request"})
        yield Measurement("abstractllm.server.held", self._waiting.unread_bytes, {"direction": "response"})

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a call; called by grpc when the headers have arrived."""
        path: str = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            method = self.methods.get(path)
            handler = self._handler(method or Method(path))
            if method is not None:
                self._handlers[path] = handler
        return handler

    def _handler(self, method: Method) -> Any:
        """Makes a handler that runs at the headers, and takes and gives bytes.

        A handler of single requests would run when the message is there, and be cut off from one that never comes. A
        single answer is returned instead of written, for grpc to send it together with the status.
        """
        if method.streams_responses:

            async def stream(_requests: object, context: aio.ServicerContext[Any, Any]) -> None:
                call = self._begin(method, context)
                try:
                    await self._answer_with_stream(call)
                except BaseException as error:
                    await self._fail(call, error)

            return grpc.stream_stream_rpc_method_handler(stream)

        async def unary(_requests: object, context: aio.ServicerContext[Any, Any]) -> bytes:
            call = self._begin(method, context)
            try:
                return await self._answer_once(call)
            except BaseException as error:
                await self._fail(call, error)

        return grpc.stream_unary_rpc_method_handler(unary)

    def _begin(self, method: Method, context: aio.ServicerContext[Any, Any]) -> GuardedCall:
        record = CallRecord(method=method.path, peer=context.peer())
        task = asyncio.current_task()
        assert task is not None
        call = GuardedCall(method, context, record, task)
        call.is_first = self._latest is None
        self._latest = call
        metadata = tuple(context.invocation_metadata() or ())
        set_current_record(record)
        task.add_done_callback(partial(self._ended, call))
        for observer in self._observers:
            observer.started(record, metadata)
        return call

    async def _answer_once(self, call: GuardedCall) -> bytes:
        handle, request = await self._admit(call)
        response = _encoded(call, await handle(request, call.context))
        if trailers := self._trailers(call):
            call.context.set_trailing_metadata(trailers)
        call.is_answered = True
        self._waiting.write_begins(call, len(response))
        return response

    async def _answer_with_stream(self, call: GuardedCall) -> None:
        handle, request = await self._admit(call)
        context, waiting = call.context, self._waiting
        async with aclosing(handle(request, context)) as responses:
            async for response in responses:
                data = _encoded(call, response)
                waiting.write_begins(call, len(data))
                await call.operations.run(context.write(data))
                waiting.write_ended(call)
                call.has_begun = True
                if call.error is not None:
                    raise call.error
        if trailers := self._trailers(call):
            context.set_trailing_metadata(trailers)
        call.is_answered = True
        waiting.write_begins(call, 0)

    async def _admit(self, call: GuardedCall) -> tuple[Callable[..., Any], Any]:
        """Lets a call in: its caller first, then its message.

        Returns:
            The handler of its method, and its request.

        Raises:
            AbstractLLMError: If it is refused.
        """
        identity = self._authenticate(call)
        call.is_known = True
        method = call.method
        if method.handle is None:
            raise UnsupportedFeatureError(f"there is no method {method.path[:200]}")
        is_always_answered = method.path.startswith(_ALWAYS_ANSWERED)
        if self._is_draining and not is_always_answered:
            raise ServerShuttingDownError("the server is shutting down")
        if identity.role is None and is_always_answered:
            self._waiting.probe_begins(call)
        if method.streams_requests:
            return method.handle, self._requests(call)
        request = await self._read(call)
        if request is None:
            raise InvalidRequestError("the call ended without a message")
        if not is_always_answered:
            self._running.add(call)
            self._connections.call_began(call.record.peer)
        return method.handle, request

    def _authenticate(self, call: GuardedCall) -> Identity:
        record, context = call.record, call.context
        properties = context.auth_context() if self._access.reads_certificates else {}
        try:
            identity = self._access.authenticate(
                record.method, context.invocation_metadata() or (), properties, record.peer
            )
        except MethodForbiddenError as error:
            _note_identity(call, error.identity)
            raise
        except AuthenticationError:
            self._connections.strike(record.peer, Strike.UNKNOWN_CALLER)
            raise
        _note_identity(call, identity)
        return identity

    async def _read(self, call: GuardedCall) -> Any:
        """Reads one message; returns None if there are no more."""
        await self._waiting.read_begins(call)
        data = await call.operations.run(call.context.read())
        self._waiting.read_ended(call)
        if not isinstance(data, bytes):  # the end of the call's messages
            return None
        call.record.request_bytes += len(data)
        assert call.method.decode is not None and call.method.request is not None
        check_field_count(data, call.method.request)
        try:
            request = call.request = call.method.decode(data)
        except Exception:
            raise InvalidRequestError("the request cannot be decoded: it is not a valid protobuf message") from None
        call.record.request_id = getattr(request, "request_id", "")[: FIELD_LIMITS["GenerateRequest.request_id"].most]
        check_ceilings(request)
        call.record.llm = getattr(request, "llm", "")
        return request

    async def _requests(self, call: GuardedCall) -> AsyncIterator[Any]:
        while (request := await self._read(call)) is not None:
            yield request

    async def _fail(self, call: GuardedCall, error: BaseException) -> NoReturn:
        """Ends a call with the status that belongs to an error."""
        takes_status = call.has_begun or not call.is_writing
        self._waiting.forget(call)
        if isinstance(error, asyncio.CancelledError) and not call.task.cancelling():
            # Something that the handler waited for was cancelled, not the call: its caller would wait for ever.
            failure = RuntimeError("what the call waited for was cancelled")
            failure.__cause__, error = error, failure
        if isinstance(error, aio.InternalError) and call.error is None:
            # grpc takes no message of an answer whose caller has left, or whose deadline has passed, before it says so.
            error = asyncio.CancelledError()
        if isinstance(error, asyncio.CancelledError):
            if call.error is None:  # the caller has left
                if call.request is None:
                    strike = Strike.EXPIRED if _is_expired(call) else Strike.LEFT_EARLY
                    self._connections.strike(call.record.peer, strike)
                raise error
            call.task.uncancel()
            error = call.error
        if not isinstance(error, AbstractLLMError):
            if isinstance(error, KeyboardInterrupt | aio.AbortError):
                raise error
            # SystemExit too: whatever a handler does, it must not end the server.
            cause, error = error, InternalError(f"{type(error).__name__}: {error}")
            error.__cause__ = cause
        record, request = call.record, call.request
        error.fill(
            request_id=record.request_id or None,
            llm=getattr(request, "llm", None) or None,
            output_tokens=record.output_tokens,
        )
        if error.reason is ErrorReason.INTERNAL:
            error.fill(request_id=uuid.uuid4().hex)
            logger.error("the call with request id %s failed", error.request_id, exc_info=error)
        status = status_of(error)
        record.error, record.status = error, status.code.name
        call.request = request = None
        _forget_variables(error)
        if not takes_status:
            # Nothing that was sent has left yet, and grpc would send the headers again, which is an error that costs it
            # memory for ever.
            self._drop(call)
            raise asyncio.CancelledError from None
        try:
            await abort(call, status, self._trailers(call))
        except (aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as failure:
            # The status was not taken in time. Where the guard has not ended the call, grpc takes none since the caller
            # has left meanwhile.
            if call.error is not None or isinstance(failure, TimeoutError):
                self._drop(call)
            raise asyncio.CancelledError from None

    def _trailers(self, call: GuardedCall) -> tuple[tuple[str, str | bytes], ...]:
        """Returns what the end of a call tells its caller about the server: nothing, unless it is known who that is."""
        is_of_contract = call.method.handle is not None and not call.method.path.startswith(_ALWAYS_ANSWERED)
        if self._make_trailers is None or not call.is_known or not is_of_contract:
            return ()
        return self._make_trailers(call.record)

    def _drop(self, call: GuardedCall) -> None:
        """Ends a call that takes no status."""
        # With its connection, unless that has other calls: only so grpc frees all that the call has. It refers to the
        # first call for ever, and to the one that came last until the next one comes.
        self._connections.close(call.record.peer, "unread")
        self._waiting.drop(call)

    def _ended(self, call: GuardedCall, task: asyncio.Task[Any]) -> None:
        """Notes that a call has ended, and that all of it was sent that could be."""
        self._waiting.forget(call)
        record = call.record
        if call in self._running:
            self._running.remove(call)
            self._connections.call_ended(record.peer)
        record.ended_at = time.monotonic()
        if call.is_answered and call.error is not None:
            # It was ended while grpc sent its answer, which takes no other status any more.
            record.error, record.status = call.error, status_of(call.error).code.name
            self._drop(call)
        elif not record.status:
            record.status = _status_without_error(call)
        call.request = None  # the guard itself refers to the latest call
        for observer in self._observers:
            observer.ended(record)

    async def drain(self, grace: float) -> None:
        """Refuses new calls, lets the running ones go on for `grace` seconds, then ends them with SHUTTING_DOWN."""
        self._is_draining = True
        for call in self._waiting.readers():
            if not call.method.path.startswith(_ALWAYS_ANSWERED):
                call.end(ServerShuttingDownError("the server is shutting down"))
        await _wait(self._running, grace)
        for call in self._running:
            call.end(ServerShuttingDownError("the server shut down before the answer was complete"))
        await _wait(self._running, _CANCELLATION_TIMEOUT)


def _forget_variables(error: BaseException) -> None:
    """Frees the variables of the functions that an error came through: they would hold the request for a while."""
    for link in cause_chain(error):
        traceback.clear_frames(link.__traceback__)


async def _wait(calls: Iterable[GuardedCall], seconds: float) -> None:
    tasks = {call.task for call in calls}
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def _note_identity(call: GuardedCall, identity: Identity) -> None:
    record = call.record
    record.caller, record.role = identity.caller, identity.role or ""
    if identity.role is not None:
        # A gateway brings many callers through one connection, and all those of a unix socket have one address.
        call.source = f"{record.peer} {identity.caller}"


def _encoded(call: GuardedCall, response: Any) -> bytes:
    """Encodes an answer; refuses one that gRPC could not send: gRPC would end the call without saying why."""
    assert call.method.encode is not None
    data = call.method.encode(response)
    if (size := len(data)) > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(
            f"the answer has {size} bytes, more than the {MAX_MESSAGE_BYTES} that a message may have; "
            "a stream brings it in pieces, and max_tokens bounds it",
            reason=ErrorReason.MESSAGE_TOO_LARGE,
            field="parameters.max_tokens",
            limit=MAX_MESSAGE_BYTES,
            requested=size,
        )
    call.record.response_bytes += size
    return data


def _status_without_error(call: GuardedCall) -> str:
    """Returns the name of the status of a call that the guard sent none for."""
    if call.is_answered:
        return "OK"
    code: object = call.context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:  # a handler of gRPC's own services set it
        return code.name
    return "DEADLINE_EXCEEDED" if _is_expired(call) else "CANCELLED"


def _is_expired(call: GuardedCall) -> bool:
    remaining: float | None = call.context.time_remaining()
    return remaining is not None and remaining <= 0
