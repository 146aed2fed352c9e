"""The formats that wait to be compiled: each one once, in turns by caller."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["CompileJob", "FormatQueue"]

RequestT = TypeVar("RequestT", bound=Hashable)


@dataclass(eq=False)
class CompileJob(Generic[RequestT]):
    """A format to be compiled, and the requests that wait for it."""

    key: bytes
    request: RequestT
    """The first request for it, which may have been given up."""
    requests: dict[RequestT, None] = field(default_factory=dict)
    """The requests, oldest first."""
    caller: str | None = None
    """The caller whose turn it was taken in; None while it waits."""


class FormatQueue(Generic[RequestT]):
    """Jobs for the threads that compile formats.

    Requests for one format share a job. Callers take turns, and a caller has one job at a time: one who sends many
    heavy formats keeps one thread busy, and the others stay free for everybody else. A job that no request waits for
    any more is dropped.
    """

    def __init__(self) -> None:
        self._jobs: dict[bytes, CompileJob[RequestT]] = {}
        """The jobs that wait or run, by the keys of their formats."""
        self._callers: OrderedDict[str, dict[bytes, CompileJob[RequestT]]] = OrderedDict()
        """The jobs that wait, by caller, oldest first; the first caller's turn is next. Several may have one."""
        self._busy: set[str] = set()
        """The callers that have a job in a thread."""
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Returns the number of formats that wait or are compiled."""
        return len(self._jobs)

    def add(self, request: RequestT, key: bytes, caller: str) -> None:
        """Takes a request in.

        Args:
            request: The request.
            key: The key of its format.
            caller: The caller's name.
        """
        with self._changed:
            job = self._jobs.setdefault(key, CompileJob(key, request))
            job.requests[request] = None
            if job.caller is None:
                self._callers.setdefault(caller, {})[key] = job
                self._changed.notify()

    def take(self) -> CompileJob[RequestT]:
        """Waits for the job whose turn is next, and takes it; `finish` must follow."""
        with self._changed:
            while (caller := self._next_caller()) is None:
                self._changed.wait()
            job = next(iter(self._callers[caller].values()))
            self._forget(job)
            if caller in self._callers:
                self._callers.move_to_end(caller)
            job.caller = caller
            self._busy.add(caller)
            return job

    def finish(self, job: CompileJob[RequestT]) -> list[RequestT]:
        """Ends a job that was taken, and returns the requests that wait for it."""
        with self._changed:
            assert job.caller is not None
            self._busy.discard(job.caller)
            del self._jobs[job.key]
            self._changed.notify()
            return list(job.requests)

    def discard(self, request: RequestT, key: bytes) -> bool:
        """Takes a request out; returns False if it does not wait."""
        with self._changed:
            job = self._jobs.get(key)
            if job is None or request not in job.requests:
                return False
            del job.requests[request]
            if not job.requests and job.caller is None:
                self._forget(job)
                del self._jobs[key]
            return True

    def _next_caller(self) -> str | None:
        return next((caller for caller in self._callers if caller not in self._busy), None)

    def _forget(self, job: CompileJob[RequestT]) -> None:
        """Takes a job out of the callers' queues."""
        for caller in [caller for caller, jobs in self._callers.items() if job.key in jobs]:
            del self._callers[caller][job.key]
            if not self._callers[caller]:
                del self._callers[caller]
