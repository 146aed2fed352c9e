"""The stacks of all threads and tasks in the log, to see where a server that does not answer is."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["log_stacks"]

logger = logging.getLogger("abstractllm.server")

_MOST_LINES = 400
"""Lines of a dump: the log keeps a bounded number of lines that wait to be written."""
_DEPTH = 30
"""The innermost calls of a stack that are shown."""


def log_stacks(loop: asyncio.AbstractEventLoop | None) -> None:
    """Logs where each thread is and, of an event loop, each task; called in a thread that may wait for the log.

    Only files, lines and functions are told, never a value.
    """
    try:
        lines = [*_threads(), *_tasks(loop)]
    except Exception:
        logger.exception("the stacks cannot be told")
        return
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"{len(lines) - _MOST_LINES} more lines"]
    for line in lines:
        logger.warning("stacks: %s", line)


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)  # this one
    for ident, frame in frames.items():
        yield f"thread {names.get(ident, ident)}"
        yield from _calls(_stack(frame))


def _tasks(loop: asyncio.AbstractEventLoop | None) -> Iterator[str]:
    """Yields the stacks of a loop's tasks, equal ones once."""
    if loop is None or loop.is_closed():
        return
    stacks: Counter[tuple[str, ...]] = Counter()
    for task in asyncio.all_tasks(loop):
        stacks[tuple(_awaits(task.get_coro()))] += 1
    for stack, count in stacks.most_common():
        yield f"{count} tasks" if count > 1 else "1 task"
        yield from _calls(stack)


def _stack(frame: FrameType | None) -> list[str]:
    """Returns the calls of a stack, the innermost first."""
    places: list[str] = []
    while frame is not None and len(places) < _DEPTH:
        places.append(_place(frame))
        frame = frame.f_back
    return places


def _awaits(coroutine: Any) -> list[str]:
    """Returns where a coroutine, and what it waits for, are, the innermost first."""
    places: list[str] = []
    while coroutine is not None and len(places) < _DEPTH:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is not None:
            places.insert(0, _place(frame))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return places


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _calls(places: list[str] | tuple[str, ...]) -> Iterator[str]:
    yield from (f"  {place}" for place in places)
