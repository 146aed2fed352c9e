"""The end of a call that failed: a status that is sent, or, where the caller takes none, an end without one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection
from typing import Any, NoReturn

from abstractllm_server.convert.errors import Status
from abstractllm_server.transport.call import GuardedCall

__all__ = ["abort", "drop"]

_SENDING_TIMEOUT = 5.0
"""Seconds that a status may take to be sent."""
_WATCHER = "_schedule_rpc_coro"
"""The name of grpc's coroutine that starts a call's task, and then waits for the end of the call."""


async def abort(call: GuardedCall, status: Status, trailers: tuple[tuple[str, str | bytes], ...] = ()) -> NoReturn:
    """Ends a call with a status.

    Args:
        call: The call.
        status: The status.
        trailers: Trailers beside those of the status.

    Raises:
        grpc.aio.AbortError: Once the status is sent, so that the handler ends.
        TimeoutError: If the caller did not read, so that the status could not be sent in time.
    """
    # Where the caller does not read, the status waits behind what was written before: for a while, not for ever.
    async with asyncio.timeout(_SENDING_TIMEOUT):
        await call.operations.run(call.context.abort(status.code, status.message, status.trailers + trailers))
    raise AssertionError("unreachable")


def drop(calls: Collection[GuardedCall]) -> int:
    """Ends calls whose callers do not read, and frees what waits to be sent to them.

    grpc has no function for it: a call whose task has ended stays open, with all that was written, until its caller
    reads or leaves. But it cancels a call that nobody refers to; and once the task has ended, only the coroutine that
    waits for the end of the call does.

    Args:
        calls: The calls, whose tasks end.

    Returns:
        The number of calls that were ended.
    """
    dropped, tasks = 0, {call.task for call in calls}
    for call in calls:
        call.operations.abandon()
    for watcher in asyncio.all_tasks():
        coroutine = watcher.get_coro()
        if getattr(coroutine, "__qualname__", "").endswith(_WATCHER) and _refers_to(coroutine, tasks):
            watcher.cancel()
            dropped += 1
    return dropped


def _refers_to(coroutine: object, tasks: Collection[asyncio.Task[Any]]) -> bool:
    """Tells whether a coroutine that grpc compiled has one of the tasks among its variables."""
    return any(
        isinstance(value, asyncio.Task) and value in tasks
        for variables in gc.get_referents(coroutine)
        for value in gc.get_referents(variables)
    )
