"""Turns at reading messages: HTTP/2 lets the most of a message through only once it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from abstractllm_server.transport.call import GuardedCall
from abstractllm_server.transport.open_calls import OpenCalls
from abstractllm_server.transport.phase_timer import PhaseTimer

__all__ = ["ReadingTurns"]

_AT_A_TIME = 16
"""Messages that are read at a time. Most are there at once, and take no time."""
_SLOW_AFTER = 0.25
"""Seconds after which a message counts as slow, and its turn goes to another call."""
_SLOW, _SLOW_PER_CONNECTION = 16, 8
"""Slow messages that are read beside the others. With 16 MiB at most for each, this bounds the memory."""
_SLOW_PROBES = 4
"""The same for calls that need no credentials: a check of health has a name of a few bytes."""


class ReadingTurns:
    """Bounds the messages that are being read, and so the memory that callers can take who hold back the last byte.

    Args:
        oust: Ends a call whose slow message has to go.
    """

    def __init__(self, oust: Callable[[GuardedCall], None]) -> None:
        self._oust = oust
        self._free = _AT_A_TIME
        self._queue: deque[asyncio.Future[None]] = deque()
        self._quick = PhaseTimer[GuardedCall](_SLOW_AFTER, self._is_slow)
        self._slow = OpenCalls[GuardedCall](_SLOW, _SLOW_PER_CONNECTION)
        self._slow_probes = OpenCalls[GuardedCall](_SLOW_PROBES, _SLOW_PROBES)

    async def take(self, call: GuardedCall) -> None:
        """Waits for a call's turn to read; `give_back` ends it."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()
                raise
        self._quick.start(call)

    def give_back(self, call: GuardedCall) -> None:
        """Ends a call's turn, or its slow reading, if it has either."""
        if call in self._quick:
            self._quick.stop(call)
            self._next()
        elif call.reads_slowly:
            call.reads_slowly = False
            self._slow.remove(call.connection, call)
            self._slow_probes.remove(call.connection, call)

    def _next(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _is_slow(self, call: GuardedCall) -> None:
        call.reads_slowly = True
        self._next()
        slow = self._slow_probes if call.is_probe else self._slow
        for ousted in slow.add(call.connection, call):
            self._oust(ousted)
