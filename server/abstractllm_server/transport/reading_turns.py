"""Turns at reading messages: HTTP/2 lets the most of a message through only once it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from abstractllm_server.transport.call import GuardedCall
from abstractllm_server.transport.open_calls import OpenCalls
from abstractllm_server.transport.phase_timer import PhaseTimer

__all__ = ["ReadingTurns"]

_SLOW_AFTER = 0.25
"""Seconds after which a message counts as slow, and its turn goes to another call."""


class ReadingTurns:
    """Bounds the messages that are being read, and so the memory that callers can take who hold back the last byte.

    Connections take turns: one with many calls does not keep another waiting.

    Args:
        oust: Ends a call whose slow message has to go.
        at_a_time: Messages that are read at a time. Most are there at once, and take no time.
        slow: Slow messages that are read beside the others.
        slow_per_connection: The same for one connection.
    """

    def __init__(
        self, oust: Callable[[GuardedCall], None], *, at_a_time: int, slow: int, slow_per_connection: int
    ) -> None:
        self._oust = oust
        self._free = at_a_time
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Those who wait, by connection; the connection whose turn is next comes first."""
        self._quick = PhaseTimer[GuardedCall](_SLOW_AFTER, self._is_slow)
        self._slow = OpenCalls[GuardedCall](slow, slow_per_connection)

    async def take(self, call: GuardedCall) -> None:
        """Waits for a call's turn to read; `give_back` ends it."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._queues.setdefault(call.connection, deque()).append(turn)
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

    def _next(self) -> None:
        while self._queues:
            connection, queue = next(iter(self._queues.items()))
            del self._queues[connection]
            turn = queue.popleft()
            if queue:
                self._queues[connection] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _is_slow(self, call: GuardedCall) -> None:
        call.reads_slowly = True
        self._next()
        for ousted in self._slow.add(call.connection, call):
            self._oust(ousted)
