"""The synchronous front: one background event loop for the whole process, on which all synchronous calls run."""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from abstractllm.errors import GenerationCancelledError

__all__ = ["blocking", "call", "iterate"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_READ_AHEAD = 256
"""Items that a stream may be ahead of its reader before it waits."""

_lock = threading.Lock()
_portal: BlockingPortal | None = None
_context: AbstractContextManager[BlockingPortal] | None = None
_lost: list[object] = []


def _get() -> BlockingPortal:
    global _portal, _context
    with _lock:
        if _portal is None:
            _context = start_blocking_portal(name="abstractllm-portal")
            _portal = _context.__enter__()
            atexit.register(_shut)
        return _portal


def _shut() -> None:
    global _portal, _context
    with _lock:
        context, _portal, _context = _context, None, None
    if context is not None:
        context.__exit__(RuntimeError, RuntimeError("the interpreter is closing"), None)


def _after_fork() -> None:
    """A fork copies the memory, not the thread: the child starts a portal of its own."""
    global _portal, _context, _lock
    # Kept, not collected: closing it would wait for the thread that the child does not have.
    _lost.append(_context)
    _portal, _context, _lock = None, None, threading.Lock()
    atexit.unregister(_shut)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def call(function: Callable[[], Awaitable[T]]) -> T:
    """Runs an asynchronous function on the portal and waits; an interrupt (Ctrl-C) cancels it."""
    future = _get().start_task_soon(function)
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
    """Iterates an asynchronous generator from synchronous code, pumped by one task on the portal.

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
        task = _get().start_task_soon(pump)
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
