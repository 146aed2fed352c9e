"""The load of the server, as a balancer needs it: measured over the calls of the last half minute or so."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from abstractllm.call_record import CallRecord
from abstractllm.errors import ErrorReason
from abstractllm.interface import AbstractLLMInterface
from abstractllm.registry import LLMRegistry
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.observer import Metadata

__all__ = ["Load", "ServerLoad"]

_MEMORY = 20.0
"""Seconds after which a call counts for 1/e of what it counted for when it ended."""
_USUAL_TOKEN_SECONDS = 0.05
"""The time per token, from a request's arrival to its end, at which utilization is the share of places in use."""
_USUAL_LIMIT = 100
"""The number of requests that count as a full LLM, where it sets no limit of its own."""
_LEAST_WEIGHT = 1e-3
"""The weight of all calls together below which nothing is known of a server any more: it has been idle for minutes."""
_FAILURE_SHARE = 0.01
"""The part of the failed calls that a server tells as answered at least, so that one which only fails is heard."""
_CPU_INTERVAL = 1.0
"""Seconds over which the use of the processor is measured at least."""

_FAULTS = frozenset(
    {
        ErrorReason.ENGINE_CRASHED,
        ErrorReason.INCOMPLETE_STREAM,
        ErrorReason.INTERNAL,
        ErrorReason.MODEL_LOAD_FAILED,
        ErrorReason.OVERLOADED,
        ErrorReason.PROVIDER_CREDENTIALS,
        ErrorReason.PROVIDER_PROTOCOL,
        ErrorReason.PROVIDER_UNAVAILABLE,
        ErrorReason.QUOTA_EXCEEDED,
        ErrorReason.SHUTTING_DOWN,
        ErrorReason.TIMEOUT,
    }
)
"""The reasons that tell something of the server; all others are the caller's, who would hear them anywhere."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load at one moment.

    Args:
        utilization: The part of its capacity that a server uses, weighted with its slowness; above 1 where requests
            wait, or come slowly, and 0 where nothing is known.
        cpu: The part of one processor that the server's process uses: its event loop has no more than one.
        answered: Generations that were answered in a second.
        failed: Generations that failed in a second for a reason of the server's.
        running: Requests that LLMs answer.
        waiting: Requests that wait for their turn.
        running_limit: Requests that the LLMs answer at a time at most.
        kv_cache_usage: The part of a cache of keys and values that requests hold: of the fullest one.
    """

    utilization: float = 0.0
    cpu: float = 0.0
    answered: float = 0.0
    failed: float = 0.0
    running: int = 0
    waiting: int = 0
    running_limit: int = 0
    kv_cache_usage: float = 0.0


class _Work:
    """The work of one LLM, in which what was done long ago counts less: request-seconds, and tokens."""

    __slots__ = ("seconds", "tokens")

    def __init__(self) -> None:
        self.seconds = self.tokens = 0.0

    def add(self, seconds: float, tokens: int) -> None:
        """Adds a request that has lasted for a time until now, and has brought tokens all the time."""
        weighted = _MEMORY * -math.expm1(-seconds / _MEMORY)
        self.seconds += weighted
        # An answer without a token has taken its time, too.
        self.tokens += max(tokens, 1) * (weighted / seconds if seconds > 0 else 1.0)

    def fade(self, factor: float) -> None:
        """Lets what was done count for less."""
        self.seconds *= factor
        self.tokens *= factor

    def with_running(self, records: Collection[CallRecord]) -> _Work:
        """Returns the work with that of requests which have not ended."""
        total = _Work()
        total.seconds, total.tokens = self.seconds, self.tokens
        for record in records:
            total.add(record.seconds, record.output_tokens or 0)
        return total


class ServerLoad:
    """Observes calls, and tells the load that they make, in any thread.

    Utilization is the sum over the LLMs of

        (requests at a time / their limit) * (seconds per token / 0.05) + requests that wait / their limit

    where requests at a time are those of the last half minute on average, waiting ones included, and the seconds are
    those of the requests, so that what they wait is part of it. Where requests hold more of the cache of keys and
    values than of the places, its usage takes the place of the first term's first factor. A client that weights servers
    by the rate of answers over utilization, as gRPC and Envoy do, so gives one that takes five times as long
    a twenty-fifth of the calls: five times fewer requests at a time than the others have.

    Args:
        registry: The LLMs.
        methods: The paths of the methods that generate.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, registry: LLMRegistry, methods: Collection[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._methods = frozenset(methods)
        self._clock = clock
        self._lock = threading.Lock()
        self._open: set[CallRecord] = set()
        self._work: dict[str, _Work] = {}
        self._answered = self._failed = self._elapsed = 0.0
        """Calls, and the seconds since the start, faded likewise: their ratio is a rate from the first call on."""
        self._faded_at = clock()
        self._cpu = 0.0
        self._cpu_mark = (clock(), time.process_time())

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Notes a call that begins."""
        if record.method in self._methods:
            with self._lock:
                self._open.add(record)

    def ended(self, record: CallRecord) -> None:
        """Counts a call that has ended, unless that has been done; its error, or its status, is known."""
        with self._lock:
            if record in self._open:
                self._open.remove(record)
                self._count(record)

    def _count(self, record: CallRecord) -> None:
        self._fade()
        reason = None if record.error is None else record.error.reason
        if reason in _FAULTS or record.status == "DEADLINE_EXCEEDED":
            self._failed += 1
        elif reason is not None and record.output_tokens is None:
            return  # the caller's fault, found before anything was done
        elif record.status != "CANCELLED" or record.output_tokens is not None:
            self._answered += 1
        if record.operation == "chat" and record.provider:  # else no LLM had it, and its name may be anybody's
            self._work.setdefault(record.llm, _Work()).add(record.seconds, record.output_tokens or 0)

    def measure(self) -> Load:
        """Returns the load, as it is now."""
        with self._lock:
            return self._measure()

    def measurements(self) -> Iterator[Measurement]:
        """Yields what a router needs that reads metrics: of all LLMs together."""
        load = self.measure()
        yield Measurement("abstractllm.server.utilization", load.utilization)
        yield Measurement("abstractllm.server.requests", load.running, {"state": "running"})
        yield Measurement("abstractllm.server.requests", load.waiting, {"state": "waiting"})
        yield Measurement("abstractllm.server.kv_cache.usage", load.kv_cache_usage)

    def _measure(self) -> Load:
        self._fade()
        running: dict[str, list[CallRecord]] = {}
        for record in self._open:
            if record.operation == "chat":
                running.setdefault(record.llm, []).append(record)
        utilization, kv_cache_usage, limit = 0.0, 0.0, 0
        for llm in tuple(self._registry):
            work = self._work.get(llm.name, _Work()).with_running(running.get(llm.name, ()))
            usage = 0.0 if (statistics := llm.engine_statistics) is None else statistics.kv_cache_usage
            utilization += self._utilization(llm, work, usage)
            kv_cache_usage = max(kv_cache_usage, usage)
            limit += llm.max_running
        answering = [llm for llm in tuple(self._registry) if llm.provider != "fallback"]  # whose requests others have
        waiting = sum(llm.queued for llm in answering)
        is_known = self._answered + self._failed > _LEAST_WEIGHT
        answered, failed = (self._answered / self._elapsed, self._failed / self._elapsed) if is_known else (0.0, 0.0)
        return Load(
            utilization=utilization,
            cpu=self._cpu_use(),
            answered=max(answered, failed * _FAILURE_SHARE),
            failed=failed,
            running=max(0, sum(llm.running for llm in answering) - waiting),
            waiting=waiting,
            running_limit=limit,
            kv_cache_usage=kv_cache_usage,
        )

    def _utilization(self, llm: AbstractLLMInterface, work: _Work, kv_cache_usage: float) -> float:
        limit = llm.max_running or _USUAL_LIMIT
        waiting = llm.queued / limit
        if work.tokens <= 0 or self._elapsed <= 0:
            return waiting
        places = max(work.seconds / self._elapsed / limit, kv_cache_usage)
        return places * (work.seconds / work.tokens / _USUAL_TOKEN_SECONDS) + waiting

    def _fade(self) -> None:
        now = self._clock()
        factor = math.exp((self._faded_at - now) / _MEMORY)
        self._elapsed = self._elapsed * factor + _MEMORY * (1 - factor)
        self._answered *= factor
        self._failed *= factor
        for work in self._work.values():
            work.fade(factor)
        self._faded_at = now

    def _cpu_use(self) -> float:
        now, used = self._clock(), time.process_time()
        since, used_before = self._cpu_mark
        if now - since >= _CPU_INTERVAL:
            self._cpu = (used - used_before) / (now - since)
            self._cpu_mark = now, used
        return self._cpu
