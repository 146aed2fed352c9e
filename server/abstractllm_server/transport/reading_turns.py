"""Turns at reading messages: HTTP/2 lets the most of a message through only once it is read."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from abstractllm_server.transport.call import GuardedCall
from abstractllm_server.transport.phase_timer import PhaseTimer

__all__ = ["ReadingTurns"]

_SLOW_AFTER = 0.25
"""Seconds after which a message counts as slow, and its turn goes to another call."""
_PATIENCE = 10.0
"""Seconds for which a slow message does not give way to a newer one: else, where many are slow, none would arrive."""


class ReadingTurns:
    """Bounds the messages that are being read, and so the memory that callers can take who hold back the last byte.

    Sources of calls take turns: one with many calls does not keep another waiting.

    Args:
        oust: Ends a call whose slow message has to go.
        at_a_time: Messages that are read at a time. Most are there at once, and take no time.
        slow: Slow messages that are read beside the others.
        slow_per_source: The same for one source.
    """

    def __init__(self, oust: Callable[[GuardedCall], None], *, at_a_time: int, slow: int, slow_per_source: int) -> None:
        self._oust = oust
        self._free = at_a_time
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Those who wait, by source; the source whose turn is next comes first."""
        self._quick = PhaseTimer[GuardedCall](_SLOW_AFTER, self._is_slow)
        self._most_slow, self._most_slow_per_source = slow, slow_per_source
        self._slow: dict[GuardedCall, float] = {}
        """The calls whose slow messages are being read, and since when they are slow: the longest first."""

    async def take(self, call: GuardedCall) -> None:
        """Waits for a call's turn to read; `give_back` ends it."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._queues.setdefault(call.source, deque()).append(turn)
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
        else:
            self._slow.pop(call, None)

    def _next(self) -> None:
        while self._queues:
            source, queue = next(iter(self._queues.items()))
            del self._queues[source]
            turn = queue.popleft()
            if queue:
                self._queues[source] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _is_slow(self, call: GuardedCall) -> None:
        now = asyncio.get_running_loop().time()
        self._slow[call] = now
        candidates = self._candidates(call.source)
        if candidates and not self._others_wait(call.source):
            # One caller's many messages over a slow line: they may take as long as nobody else needs the turn.
            del self._slow[call]
            self._quick.start(call)
            return
        self._next()
        if candidates:
            oldest, newest = candidates[0], candidates[-1]
            ousted = oldest if now - self._slow[oldest] > _PATIENCE else newest
            del self._slow[ousted]
            self._oust(ousted)

    def _others_wait(self, source: str) -> bool:
        return any(not turn.done() for other, turns in self._queues.items() if other != source for turn in turns)

    def _candidates(self, source: str) -> list[GuardedCall]:
        """Returns the slow calls of which one has to go, the oldest first: those of a source with too many, or most.

        Args:
            source: The source of the newest.
        """
        counts = Counter(call.source for call in self._slow)
        if counts[source] > self._most_slow_per_source:
            return [call for call in self._slow if call.source == source]
        if len(self._slow) > self._most_slow:
            most = max(counts.values())
            return [call for call in self._slow if counts[call.source] == most]
        return []
