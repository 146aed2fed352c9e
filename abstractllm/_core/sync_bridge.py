"""The bridge from synchronous calls to asynchronous code: one background event loop for the whole process."""

from __future__ import annotations

import asyncio
import atexit
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from abstractllm._core.forks import forget_in_forked_child
from abstractllm.errors import GenerationCancelledError

__all__ = ["blocking", "call", "iterate"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_READ_AHEAD = 256
"""Items that a stream may be ahead of its reader before it waits."""


class _Bridge:
    """The background event loop, in a thread of its own that starts with the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._context: AbstractContextManager[BlockingPortal] | None = None
        self._abandoned: list[object] = []
        forget_in_forked_child(self)

    def portal(self) -> BlockingPortal:
        """Returns the way into the event loop, which it starts if need be."""
        with self._lock:
            if self._portal is None:
                self._context = start_blocking_portal(name="abstractllm-sync-bridge")
                self._portal = self._context.__enter__()
                atexit.register(self._shut)
            return self._portal

    def _shut(self) -> None:
        with self._lock:
            context, self._portal, self._context = self._context, None, None
        if context is not None:
            context.__exit__(RuntimeError, RuntimeError("the interpreter is closing"), None)

    def forget(self) -> None:
        """Lets a forked child start an event loop of its own, as a fork copies the memory but not the thread."""
        # Kept, not collected: closing it would wait for the thread that the child does not have.
        self._abandoned.append(self._context)
        self._portal, self._context, self._lock = None, None, threading.Lock()
        atexit.unregister(self._shut)


_bridge = _Bridge()


def call(function: Callable[[], Awaitable[T]]) -> T:
    """Runs an asynchronous function on the bridge and waits for its result; an interrupt (Ctrl-C) cancels it."""
    future = _bridge.portal().start_task_soon(function)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], T]:
    """Makes the synchronous twin of an asynchronous method whose name ends in `_async`.

    The twin has the method's types and docstring. It calls whatever the object has under the method's name, so that a
    subclass overrides the asynchronous method alone.

    Example:
        async def close_async(self) -> None: ...

        close = blocking(close_async)
    """
    name = method.__name__

    @wraps(method, updated=())  # an abstract method's twin is not abstract itself
    def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        overridden: Callable[P, Awaitable[T]] = getattr(self, name)
        return call(lambda: overridden(*args, **kwargs))

    twin.__name__ = name.removesuffix("_async")
    twin.__qualname__ = method.__qualname__.removesuffix("_async")
    return twin


class _EndOfStreamError(Exception):
    """Marks the end of a stream in its queue."""


def iterate(open_stream: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """Iterates an asynchronous generator from synchronous code, pumped by one task on the bridge.

    Leaving the iterator (a `break`, an exception, `close`, garbage collection) cancels the task, which closes the
    generator.
    """
    items: queue.Queue[T | BaseException] = queue.Queue()
    room = threading.Semaphore(_READ_AHEAD)

    async def pump() -> None:
        try:
            async with aclosing(open_stream()) as stream:
                async for item in stream:
                    while not room.acquire(blocking=False):  # noqa: ASYNC110 - the reader is a thread, not a task
                        await asyncio.sleep(0.01)
                    items.put(item)
            items.put(_EndOfStreamError())
        except asyncio.CancelledError:
            items.put(GenerationCancelledError("the background event loop was closed"))
            raise
        except Exception as error:
            items.put(error)

    def read() -> Generator[T, None, None]:
        task = _bridge.portal().start_task_soon(pump)
        try:
            while True:
                item = items.get()
                if isinstance(item, _EndOfStreamError):
                    return
                if isinstance(item, BaseException):
                    raise item
                room.release()
                yield item
        finally:
            task.cancel()

    return read()
