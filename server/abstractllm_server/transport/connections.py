"""The keeper of connections: a thread that closes those that only cost, since gRPC closes none of them."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum

from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.transport.memory import MemoryTrimmer
from abstractllm_server.transport.sockets import Address, Connection, address_of_peer, connections, shut_down

__all__ = ["Connections", "Strike", "connection_limit", "raise_descriptor_limit"]

logger = logging.getLogger("abstractllm.server")

_INTERVAL = 0.25
"""Seconds between two looks at the connections."""
_SILENT_SECONDS = 10.0
"""Seconds that a connection may stay open without a byte from its caller."""
_CROWDED = 0.75
"""The share of the limit from which on connections that do nothing are closed."""
_SHORTEST_STAY = 0.3
"""Seconds that a connection has to make its first call, where room runs out."""
_GRACE = 10.0
"""Seconds that calls have to end on a connection that is to be closed."""
_DESCRIPTORS_KEPT, _SHARE_KEPT = 64, 0.25
"""Descriptors that connections leave to all else: files, upstreams, engines."""
_STRIKES, _STRIKE_SECONDS = 6000, 10.0
"""The weight of the strikes, within that many seconds, for which a connection is closed."""


class Strike(IntEnum):
    """Calls that brought nothing, by the weight of the suspicion that the caller means no good."""

    EXPIRED = 1
    """Their deadline passed before they were looked at: a good caller's too, where there are too many calls."""
    LEFT_EARLY = 24
    """Their caller left before the message arrived."""
    UNKNOWN_CALLER = 24
    """Without valid credentials."""
    USELESS = 24
    """Ended by the guard: no message came, nobody read the answer, or there were too many."""


class _Use:
    """The use of one connection: its admitted calls that run, and the time at which the latest began or ended."""

    __slots__ = ("last", "running")

    def __init__(self) -> None:
        self.running = 0
        self.last = 0.0


class Connections:
    """Knows the connections of a server, and closes those that only cost.

    It closes a connection that never says anything; one whose calls bring nothing, over and over; where room runs out,
    those without calls, first the ones that never made any; those that were opened before a moment that the server
    names. Every client of gRPC connects again by itself when it has a call to make.

    The methods that tell of calls are the event loop's; all else is done in a thread, which does not wait for the loop.

    Args:
        limit: Connections that may be open.

    Attributes:
        limit: Connections that may be open.
        closed: The number of connections that were closed, by reason.
    """

    def __init__(self, limit: int) -> None:
        self.closed: Counter[str] = Counter()
        self.limit = limit
        self._ports: frozenset[int] = frozenset()
        self._first_seen: dict[Address, float] = {}
        self._uses: dict[str, _Use] = {}
        self._strikes: dict[str, int] = {}
        self._strikes_since = 0.0
        self._to_close = deque[tuple[str, str]]()
        self._opened_before = 0.0
        self._memory = MemoryTrimmer()
        self._is_stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)

    def start(self, ports: Collection[int]) -> None:
        """Starts to look after the connections to some ports of this process."""
        self._ports = frozenset(ports)
        self._thread.start()

    def stop(self) -> None:
        """Stops looking after them."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def call_began(self, peer: str) -> None:
        """Notes that a call was admitted."""
        use = self._uses.get(peer)
        if use is None:
            use = self._uses[peer] = _Use()
        use.running += 1

    def call_ended(self, peer: str) -> None:
        """Notes that an admitted call has ended."""
        use = self._uses.get(peer)
        if use is not None:  # the thread may have forgotten the connection just when the call began
            use.running -= 1
            use.last = time.monotonic()

    def strike(self, peer: str, strike: Strike) -> None:
        """Notes a call that brought nothing."""
        now = time.monotonic()
        if now - self._strikes_since > _STRIKE_SECONDS:
            self._strikes, self._strikes_since = {}, now
        weight = self._strikes[peer] = self._strikes.get(peer, 0) + strike
        if weight >= _STRIKES:
            del self._strikes[peer]
            self.close(peer, "abuse")

    def close(self, peer: str, reason: str) -> None:
        """Closes a connection, at once."""
        self._to_close.append((peer, reason))
        self._wake.set()

    def close_opened_before(self, moment: float) -> None:
        """Closes the connections that were opened before a moment of `time.monotonic`, once their calls have ended.

        Calls have ten seconds for it.
        """
        self._opened_before = moment
        self._wake.set()

    def measurements(self) -> Iterable[Measurement]:
        """Returns the numbers of open and closed connections."""
        yield Measurement("abstractllm.server.connections", len(self._first_seen))
        closed = dict.fromkeys(("silent", "outdated", "crowded"), 0) | self.closed.copy()
        for reason, count in closed.items():
            yield Measurement("abstractllm.server.connections.closed", count, {"reason": reason})

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(_INTERVAL)
            self._wake.clear()
            try:
                self._look()
                self._memory.trim()
            except Exception:
                logger.exception("the connections could not be looked after; they will be again")

    def _look(self) -> None:
        now = time.monotonic()
        reasons: dict[Address | None, str] = {}
        while self._to_close:
            peer, why = self._to_close.popleft()
            reasons[address_of_peer(peer)] = why
        uses = {address_of_peer(peer): use for peer, use in self._uses.copy().items()}
        open_now = list(connections(self._ports))
        self._first_seen = {one.peer: self._first_seen.get(one.peer, now) for one in open_now}
        for peer, known in self._uses.copy().items():
            if not known.running and address_of_peer(peer) not in self._first_seen:
                self._uses.pop(peer, None)
        left: list[Connection] = []
        for one in open_now:
            age, use = now - self._first_seen[one.peer], uses.get(one.peer)
            if reason := reasons.get(one.peer) or self._reason(one, age, use):
                self._close(one, reason)
            else:
                left.append(one)
        if (excess := len(left) - int(self.limit * _CROWDED)) > 0:
            self._make_room(left, uses, excess)

    def _reason(self, one: Connection, age: float, use: _Use | None) -> str:
        """Returns the reason for which a connection is closed; empty if it may stay."""
        if one.received == 0 and age > _SILENT_SECONDS:
            return "silent"
        is_outdated = self._first_seen[one.peer] <= self._opened_before
        is_free = use is None or not use.running or time.monotonic() - self._opened_before > _GRACE
        return "outdated" if is_outdated and is_free else ""

    def _make_room(self, left: Sequence[Connection], uses: Mapping[Address | None, _Use], excess: int) -> None:
        """Closes connections without calls: those that never made any, the oldest first, then the longest unused."""

        def last_use(one: Connection) -> tuple[float, float]:
            use = uses.get(one.peer)
            return use.last if use else 0.0, self._first_seen[one.peer]

        now = time.monotonic()
        unused = [
            one
            for one in left
            if not ((use := uses.get(one.peer)) and use.running) and now - self._first_seen[one.peer] > _SHORTEST_STAY
        ]
        for one in sorted(unused, key=last_use)[:excess]:
            self._close(one, "crowded")

    def _close(self, one: Connection, reason: str) -> None:
        if shut_down(one):
            self.closed[reason] += 1
            logger.log(
                logging.WARNING if self.closed[reason] == 1 else logging.DEBUG,
                "closed the connection of %s: %s",
                ":".join(map(str, one.peer)),
                reason,
            )


def connection_limit(limit: int) -> int:
    """Returns the number of connections for which there are descriptors: at most `limit`."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limit
    return max(1, min(limit, descriptors - max(_DESCRIPTORS_KEPT, int(descriptors * _SHARE_KEPT))))


def raise_descriptor_limit() -> None:
    """Takes as many descriptors as the system allows this process: connections need one each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS refuses what exceeds its own maximum
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
