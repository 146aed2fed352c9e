"""The keeper of connections: a thread that closes those that only cost, since gRPC closes none of them."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from enum import IntEnum

from abstractllm.errors import ConfigurationError
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.transport.memory import MemoryTrimmer
from abstractllm_server.transport.sockets import Address, Connection, address_of_peer, connections, shut_down

__all__ = ["Connections", "Strike", "connection_limit", "monitoring_limit", "raise_descriptor_limit"]

logger = logging.getLogger("abstractllm.server")

_INTERVAL = 0.25
"""Seconds between two looks at the connections, unless there are very many."""
_REST = 20
"""The least ratio of the pause to the work of a look: with ten thousand connections one takes a seventh of a second."""
_SILENT_SECONDS = 10.0
"""Seconds that a connection may stay open without a byte from its caller."""
_CROWDED = 0.75
"""The share of the limit from which on connections that do nothing are closed."""
_SHORTEST_STAY = 0.3
"""Seconds that a connection has to make its first call, where room runs out."""
_GRACE = 10.0
"""Seconds that calls have to end on a connection that is to be closed."""
_DESCRIPTORS_KEPT, _SHARE_KEPT = 64, 0.25
"""Descriptors that connections leave to all else: files, upstreams, engines, the ports for monitoring."""
_SHARE_OF_MONITORING = 1 / 16
"""The share of the descriptors that each port for monitoring may take."""
_STRIKES, _STRIKE_SECONDS = 6000, 10.0
"""The weight of the strikes, within that many seconds, for which a connection is closed that brings nothing else."""

_REASONS = ("silent", "outdated", "crowded", "abuse", "unread")
"""The reasons for which connections are closed."""


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

    def is_recent(self, now: float) -> bool:
        """Tells whether the connection brings admitted calls, though perhaps none at the moment."""
        return self.running > 0 or now - self.last < _STRIKE_SECONDS


class Connections:
    """Knows the connections of a server, and closes those that only cost.

    It closes a connection that never says anything; one whose calls bring nothing, over and over; where room runs out,
    those without calls, first the ones that never made any; those that were opened before a moment that the server
    names. Every client of gRPC connects again by itself when it has a call to make.

    Through a gateway one connection carries the calls of many callers. So none is closed while an admitted call runs on
    it, but for those that a replaced root of certificates has opened; and calls that bring nothing are held against a
    connection only if it has brought nothing else for a while.

    The methods that tell of calls may be called by any thread; all else is done in a thread of its own.

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
        self._lock = threading.Lock()
        self._uses: dict[Address | None, _Use] = {}
        self._condemned: dict[Address | None, str] = {}
        """The connections that are closed as soon as no admitted call runs on them, and the reasons."""
        self._strikes: dict[str, int] = {}
        self._strikes_since = 0.0
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
        with self._lock:
            use = self._uses.get(address := address_of_peer(peer))
            if use is None:
                use = self._uses[address] = _Use()
            use.running += 1
            use.last = time.monotonic()

    def call_ended(self, peer: str) -> None:
        """Notes that an admitted call has ended."""
        with self._lock:
            use = self._uses[address_of_peer(peer)]
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
            use = self._uses.get(address_of_peer(peer))
            if use is None or not use.is_recent(now):
                self.close(peer, "abuse")

    def close(self, peer: str, reason: str) -> None:
        """Has a connection closed, as soon as no admitted call runs on it."""
        with self._lock:
            self._condemned[address_of_peer(peer)] = reason
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
        closed = dict.fromkeys(_REASONS, 0) | self.closed.copy()
        for reason, count in closed.items():
            yield Measurement("abstractllm.server.connections.closed", count, {"reason": reason})

    def _run(self) -> None:
        pause = _INTERVAL
        while not self._is_stopping:
            self._wake.wait(pause)
            self._wake.clear()
            began = time.thread_time()
            try:
                self._look()
                self._memory.trim()
            except Exception:
                logger.exception("the connections could not be looked after; they will be again")
            pause = max(_INTERVAL, _REST * (time.thread_time() - began))

    def _look(self) -> None:
        now = time.monotonic()
        with self._lock:
            condemned = self._condemned.copy()
        open_now = list(connections(self._ports))
        self._first_seen = {one.peer: self._first_seen.get(one.peer, now) for one in open_now}
        self._forget_closed(condemned)
        left = []
        for one in open_now:
            reason = condemned.get(one.peer) or self._reason(one, now)
            has_had_time = reason == "outdated" and now - self._opened_before > _GRACE
            if not reason or not self._close(one, reason, is_forced=has_had_time):
                left.append(one)
        if (excess := len(left) - int(self.limit * _CROWDED)) > 0:
            self._make_room(left, excess, now)

    def _forget_closed(self, condemned: Iterable[Address | None]) -> None:
        """Forgets what is known of connections that are not open any more."""
        with self._lock:
            for address in [one for one, use in self._uses.items() if not use.running and one not in self._first_seen]:
                del self._uses[address]
            for address in condemned:
                if address not in self._first_seen:
                    del self._condemned[address]

    def _reason(self, one: Connection, now: float) -> str:
        """Returns the reason for which a connection is closed; empty if it may stay."""
        first_seen = self._first_seen[one.peer]
        if one.received == 0 and now - first_seen > _SILENT_SECONDS:
            return "silent"
        return "outdated" if first_seen <= self._opened_before else ""

    def _make_room(self, left: Iterable[Connection], excess: int, now: float) -> None:
        """Closes connections without calls: those that never made any, the oldest first, then the longest unused."""

        def last_use(one: Connection) -> tuple[float, float]:
            use = self._uses.get(one.peer)
            return use.last if use else 0.0, self._first_seen[one.peer]

        for one in sorted(left, key=last_use):
            if excess and now - self._first_seen[one.peer] > _SHORTEST_STAY:
                excess -= self._close(one, "crowded")

    def _close(self, one: Connection, reason: str, *, is_forced: bool = False) -> bool:
        """Closes a connection, unless an admitted call runs on it.

        Args:
            one: The connection.
            reason: The reason, for the metrics and the log.
            is_forced: True if it is closed in spite of its calls.

        Returns:
            True if it is closed.
        """
        with self._lock:  # no call begins meanwhile
            use = self._uses.get(one.peer)
            if (use is not None and use.running and not is_forced) or not shut_down(one):
                return False
            self._condemned.pop(one.peer, None)
        self.closed[reason] += 1
        logger.log(
            logging.WARNING if self.closed[reason] == 1 else logging.DEBUG,
            "closed the connection of %s: %s",
            ":".join(map(str, one.peer)),
            reason,
        )
        return True


def connection_limit(limit: int) -> int:
    """Returns the number of connections for which there are descriptors: at most `limit`."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limit
    return max(1, min(limit, descriptors - max(_DESCRIPTORS_KEPT, int(descriptors * _SHARE_KEPT))))


def monitoring_limit(limit: int) -> int:
    """Returns the number of connections that a port for monitoring may have: at most `limit`, and few of all."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limit
    return max(1, min(limit, int(descriptors * _SHARE_OF_MONITORING)))


def raise_descriptor_limit() -> None:
    """Takes as many descriptors as the system allows this process: connections need one each.

    Raises:
        ConfigurationError: If there are too few for anything else: without one, gRPC ends the process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS refuses what exceeds its own maximum
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft != resource.RLIM_INFINITY and soft <= _DESCRIPTORS_KEPT:
        raise ConfigurationError(
            f"this process may have {soft} file descriptors, and needs more than {_DESCRIPTORS_KEPT}; `ulimit -n` and "
            "LimitNOFILE of systemd raise the limit"
        )
