"""The operations of grpc that a call begins: each runs to its end, whoever still waits for it.

grpc frees what an operation has (80 bytes for each of its parts, its message, its metadata) only where its coroutine
comes to its end. It does not where somebody who waits for it is cancelled, and not where the operation fails, as it
does when a connection is closed (https://github.com/grpc/grpc/issues/43360). So on the event loop of `ServerLoop` the
waiting is cancelled and not the operation, and the coroutine learns of no failure: who waits for it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Operations", "ServerLoop"]

T = TypeVar("T")


class _Outcome(asyncio.Future[None]):
    """The end of an operation, for grpc's coroutine alone: it never fails, but holds the error of one that does.

    Attributes:
        failure: The error; None if the operation has succeeded, or has not ended.
        waiter: Done when the operation is. To cancel a task is to cancel the future that it waits for: so it waits for
            this one.
    """

    __slots__ = ("failure", "waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.failure: BaseException | None = None
        self.waiter: asyncio.Future[None] = asyncio.Future(loop=loop)

    def set_result(self, result: None, /) -> None:
        """Notes that the operation has ended, and wakes who waits."""
        super().set_result(result)
        if not self.waiter.done():
            self.waiter.set_result(None)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """Notes that the operation has failed, and wakes who waits."""
        assert isinstance(exception, BaseException)
        self.failure = exception
        self.set_result(None)


class ServerLoop(asyncio.SelectorEventLoop):
    """The event loop of a server: the usual one, on which the operations of calls free what they have.

    Attributes:
        begins_operation: True while grpc begins an operation of a call.
    """

    begins_operation = False

    def create_future(self) -> asyncio.Future[Any]:
        """Makes a future; the one of an operation that begins tells its end in its own way."""
        return _Outcome(self) if self.begins_operation else asyncio.Future(loop=self)

    def step(self, operation: Coroutine[Any, Any, Any]) -> _Outcome:
        """Runs grpc's coroutine until it waits for an operation; returns the end of that.

        Raises:
            StopIteration: If it has come to its end; its value is the result.
        """
        self.begins_operation = True
        try:
            outcome: _Outcome = operation.send(None)
        finally:
            self.begins_operation = False
        return outcome


class Operations:
    """The operations of one call.

    Args:
        loop: The event loop that it is on. On one that is no `ServerLoop` they are as grpc has them.
    """

    __slots__ = ("_left", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop if isinstance(loop, ServerLoop) else None
        self._left: set[Coroutine[Any, Any, Any]] | None = None
        """Those that nobody waits for any more. They end when gRPC ends the call."""

    @property
    def left(self) -> int:
        """The number of operations that nobody waits for any more, and that have not ended."""
        return len(self._left or ())

    async def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Runs an operation, such as `context.read()`, and returns its result.

        Raises:
            grpc.aio.InternalError: If the operation fails.
        """
        if self._loop is None:
            return await operation
        outcome = None
        while True:
            try:
                outcome = self._loop.step(operation)
            except StopIteration as end:
                if outcome is not None and outcome.failure is not None:
                    raise outcome.failure from None
                result: T = end.value
                return result
            try:
                await outcome.waiter
            except BaseException:
                self._leave(operation, outcome)
                raise

    def abandon(self) -> None:
        """Forgets the operations that nobody waits for: those of a call that is to end, though its caller stays.

        What grpc has for them it keeps for ever.
        """
        for operation in self._left or ():
            operation.close()
        self._left = None

    def _leave(self, operation: Coroutine[Any, Any, Any], outcome: _Outcome) -> None:
        if self._left is None:
            self._left = set()
        self._left.add(operation)
        outcome.add_done_callback(lambda _: self._go_on(operation))

    def _go_on(self, operation: Coroutine[Any, Any, Any]) -> None:
        if self._left is None or operation not in self._left:  # it was forgotten
            return
        assert self._loop is not None
        self._left.remove(operation)
        with suppress(StopIteration, Exception):  # nobody is there to hear of it
            self._leave(operation, self._loop.step(operation))
