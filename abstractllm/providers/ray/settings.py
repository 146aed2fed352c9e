"""The configuration of a deployment's LLM, as servers and replicas come to agree on it.

Each configuration has a version: the time of the deployment, and a number that each change raises. A replica takes over
what is newer than its own, from the request that brings it or from a server that looks at it; a server takes over what
replicas tell. So a replica that starts late, and a server that did not make the change, have it within a second or two.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Settings", "Version"]

Version = tuple[int, int]
_TELLING_SECONDS = 2.0
"""Seconds that a look at the replicas waits until those that are behind are up to date."""


class _Report(Protocol):
    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that a replica tells of itself."""

    @property
    def version(self) -> Version:
        """The version of its configuration."""


class Settings:
    """The newest configuration that this process knows of.

    Args:
        values: The keys of the LLM, as this process's configuration file has them.
        on_news: Called with the keys when another server has changed them.
    """

    def __init__(self, values: Mapping[str, Any], on_news: Callable[[Mapping[str, Any]], None]) -> None:
        self._lock = threading.Lock()
        self._on_news = on_news
        self._file = self._base = self.values = dict(values)
        self.version: Version = (0, 0)

    @property
    def call(self) -> dict[str, Any]:
        """The part of a request that says under which configuration it is answered.

        That is the version and, where replicas that start begin with another one, the keys.
        """
        with self._lock:
            return {"version": list(self.version), "values": self.values if self.version[1] else None}

    def begin(self) -> Version:
        """Returns the version of a deployment that is made now, with the file's keys."""
        with self._lock:
            self.version = (max(time.time_ns() // 1_000_000, self.version[0] + 1), 0)
            self.values = self._base = self._file
            return self.version

    def next_version(self) -> Version:
        """Returns the version of a change that is to be made."""
        with self._lock:
            return self.version[0], self.version[1] + 1

    def adopt(self, version: Version, values: Mapping[str, Any]) -> None:
        """Notes a change that replicas have made."""
        with self._lock:
            if version > self.version:
                self.version, self.values = version, dict(values)

    def put_file(self, values: Mapping[str, Any]) -> None:
        """Takes the keys of a configuration file that was read again."""
        with self._lock:
            self._file = dict(values)
            if not self.version[0]:  # nothing is deployed yet
                self.values = self._base = self._file

    def bring_file(self) -> None:
        """Puts the file's keys in force, unless what is in force was made of the same file: then changes since stay."""
        with self._lock:
            if self._file != self._base:
                self._base = self.values = self._file
                self.version = (self.version[0], self.version[1] + 1)

    def reset_to_file(self) -> None:
        """Puts the file's keys in force, whatever was changed since."""
        with self._lock:
            if self._file != self.values:
                self._base = self.values = self._file
                self.version = (self.version[0], self.version[1] + 1)

    def hear(self, reports: Sequence[_Report]) -> None:
        """Takes over the newest configuration that replicas tell of."""
        news = None
        with self._lock:
            for report in reports:
                if report.version > self.version and report.facts["values"] is not None:
                    self.version, self.values = report.version, dict(report.facts["values"])
                    self._base = dict(report.facts["base"])
                    news = self.values
        if news is not None:
            self._on_news(news)

    def tell(self, handle: Any, reports: Sequence[_Report]) -> None:
        """Brings the replicas up to date that are behind; those that run requests of the old one end them under it."""
        version = self.version
        if version[1] and any(report.version < version for report in reports):
            response = handle.broadcast("configure", list(version), self.values, self._base)
            # It goes on where that takes longer, as the loading of a model does.
            with contextlib.suppress(TimeoutError):
                response.results(timeout_s=_TELLING_SECONDS, return_exceptions=True)
