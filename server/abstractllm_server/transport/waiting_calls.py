"""The calls that wait for their callers: for a message to arrive, or for an answer to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from abstractllm.errors import AbstractLLMError, GenerationTimeoutError, OverloadedError
from abstractllm_server.transport.abort import drop
from abstractllm_server.transport.call import GuardedCall
from abstractllm_server.transport.connections import Connections, Strike
from abstractllm_server.transport.open_calls import OpenCalls
from abstractllm_server.transport.phase_timer import PhaseTimer
from abstractllm_server.transport.reading_turns import ReadingTurns

__all__ = ["WaitingCalls"]

_PENDING, _PENDING_PER_SOURCE = 256, 192
"""Calls whose headers have arrived and whose message has not. Each takes about 20 kB, most of it in grpc."""
_PROBES, _PROBES_PER_SOURCE = 256, 128
"""Calls of those who need no credentials, until they end: checks of health, most of them watching."""
_TURNS = {"at_a_time": 16, "slow": 16, "slow_per_source": 8}
"""Messages that are read at a time. With 16 MiB at most for each, this bounds the memory."""
_PROBE_TURNS = {"at_a_time": 4, "slow": 4, "slow_per_source": 2}
"""The same for calls of those who need no credentials: a check of health has a name of a few bytes."""
_UNREAD, _UNREAD_PER_SOURCE = 64 << 20, 32 << 20
"""Bytes that were written and that their callers do not read."""
_CALL_BYTES = 20_000
"""The memory of a call itself."""
_DROP_PAUSE = 1.0
"""Seconds for which calls that are to be dropped are gathered, as to find them takes a look at all calls."""
_DROP_PATIENCE = 3.0
"""Seconds in which their connection may be closed, which ends what grpc does for them. Of a call that is dropped before
that, it keeps some 300 bytes for ever; of one that is not, some 20 kB as long as the connection stays."""
_SLOW = 0.25
"""Seconds after which an answer that was not read counts as unread."""


class WaitingCalls:
    """The calls that wait for their callers, each for a limited time, and a limited number of them.

    Args:
        connections: The keeper of the connections, told of calls that are ended.
        read_timeout: Seconds that a message may take to arrive.
        write_timeout: Seconds that an answer, or one message of a stream, may wait for its reader.
    """

    def __init__(self, connections: Connections, read_timeout: float, write_timeout: float) -> None:
        self._connections = connections
        self._reads = PhaseTimer[GuardedCall](read_timeout, self._read_expired)
        self._writes = PhaseTimer[GuardedCall](min(_SLOW, write_timeout), self._write_is_slow)
        self._slow_writes = PhaseTimer[GuardedCall](max(write_timeout - _SLOW, 0.0), self._write_expired)
        self._write_timeout = write_timeout
        self._pending = OpenCalls[GuardedCall](_PENDING, _PENDING_PER_SOURCE)
        self._probes = OpenCalls[GuardedCall](_PROBES, _PROBES_PER_SOURCE)
        self._unread = OpenCalls[GuardedCall](_UNREAD, _UNREAD_PER_SOURCE)
        self._turns = ReadingTurns(self._oust_slow, **_TURNS)
        self._probe_turns = ReadingTurns(self._oust_slow, **_PROBE_TURNS)
        self._dropped: dict[GuardedCall, float] = {}
        """The calls that are to be dropped, with the time of the event loop when they are at the latest."""

    def set_timeouts(self, read_timeout: float, write_timeout: float) -> None:
        """Sets the timeouts from now on; a call that waits already may have to be waited for as long as before."""
        self._reads.seconds = read_timeout
        self._writes.seconds = min(_SLOW, write_timeout)
        self._slow_writes.seconds = max(write_timeout - _SLOW, 0.0)
        self._write_timeout = write_timeout

    @property
    def writers(self) -> int:
        """The number of calls that wait for their answers to be read."""
        return len(self._writes) + len(self._slow_writes)

    @property
    def pending(self) -> int:
        """The number of calls whose message has not arrived."""
        return self._pending.weight

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that have not been read for a while, with what the calls themselves take."""
        return self._unread.weight

    def readers(self) -> Iterator[GuardedCall]:
        """Returns the calls whose message has not arrived."""
        return iter(list(self._pending))

    async def read_begins(self, call: GuardedCall) -> None:
        """Notes that a call begins to wait for a message, and waits for its turn to read it."""
        self._reads.start(call)
        for ousted in self._pending.add(call.source, call):
            self._oust(ousted, _too_many("calls whose message has not arrived"))
        await self._turns_of(call).take(call)

    def read_ended(self, call: GuardedCall) -> None:
        """Notes that a message has arrived."""
        self._reads.stop(call)
        self._pending.remove(call.source, call)
        self._turns_of(call).give_back(call)

    def probe_begins(self, call: GuardedCall) -> None:
        """Notes a call for which nobody is asked for credentials; it counts until it is forgotten."""
        call.is_probe = True
        for ousted in self._probes.add(call.source, call):
            self._oust(ousted, _too_many("calls without credentials"))

    def write_begins(self, call: GuardedCall, size: int) -> None:
        """Notes that a call begins to send a message of so many bytes, or, with none, its end."""
        call.unread = size
        call.is_writing = True
        self._writes.start(call)

    def write_ended(self, call: GuardedCall) -> None:
        """Notes that a message was taken."""
        call.is_writing = False
        self._writes.stop(call)
        if call.is_slow:
            self._slow_write_ended(call)

    def _slow_write_ended(self, call: GuardedCall) -> None:
        call.is_slow = False
        self._slow_writes.stop(call)
        self._unread.remove(call.source, call)

    def forget(self, call: GuardedCall) -> None:
        """Notes that a call waits for nothing any more."""
        self.read_ended(call)
        self.write_ended(call)
        self._probes.remove(call.source, call)

    def drop(self, call: GuardedCall) -> None:
        """Ends a call without a status, since its caller takes none, and frees what it holds."""
        loop = asyncio.get_running_loop()
        if not self._dropped:
            loop.call_later(_DROP_PAUSE, self._drop)
        self._dropped[call] = loop.time() + _DROP_PATIENCE

    def _drop(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [call for call, latest in self._dropped.items() if latest <= now or not call.operations.left]
        drop(due)
        for call in due:
            del self._dropped[call]
        if self._dropped:
            loop.call_later(_DROP_PAUSE, self._drop)

    def _oust(self, call: GuardedCall, error: AbstractLLMError) -> None:
        self._connections.strike(call.record.peer, Strike.USELESS)
        call.break_off(error)

    def _turns_of(self, call: GuardedCall) -> ReadingTurns:
        return self._probe_turns if call.is_probe else self._turns

    def _oust_slow(self, call: GuardedCall) -> None:
        self._oust(call, _too_many("messages that arrive slowly"))

    def _read_expired(self, call: GuardedCall) -> None:
        seconds = self._reads.seconds
        self._oust(
            call, GenerationTimeoutError(f"no message arrived for {seconds:g} seconds", limit=f"{seconds:g} seconds")
        )

    def _write_is_slow(self, call: GuardedCall) -> None:
        call.is_slow = True
        self._slow_writes.start(call)
        for ousted in self._unread.add(call.source, call, call.unread + _CALL_BYTES):
            self._oust(ousted, _too_many("bytes that were not read"))

    def _write_expired(self, call: GuardedCall) -> None:
        seconds = self._write_timeout
        self._oust(
            call,
            GenerationTimeoutError(f"the caller read nothing for {seconds:g} seconds", limit=f"{seconds:g} seconds"),
        )


def _too_many(things: str) -> AbstractLLMError:
    return OverloadedError(f"too many {things}; a call of those who have most was ended")
