"""Files that are read again when they change, while the server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from abstractllm.errors import ConfigurationError

__all__ = ["FileWatcher", "Reloadable"]

logger = logging.getLogger("abstractllm.server")

_INTERVAL = 1.0
"""Seconds between two looks at the files."""


class Reloadable(Protocol):
    """A source of settings that is read from files and can be read again."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""

    def reload(self) -> None:
        """Reads the files again; after an error what was read before stays in force.

        Raises:
            ConfigurationError: If a file cannot be used.
        """


class FileWatcher:
    """Looks at files once a second and has those that changed read again.

    Args:
        paths: The files. Create the watcher before they are first read: a change in between is then noticed too.

    Attributes:
        failed_reloads: Changes that could not be used.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._versions = _versions(paths)
        self.failed_reloads = 0

    async def run(self, sources: Sequence[Reloadable]) -> None:
        """Reloads the sources whose files change, until it is cancelled; logs a change that cannot be used."""
        while self._versions:
            await asyncio.sleep(_INTERVAL)
            versions = await asyncio.to_thread(_versions, list(self._versions))
            changed = {path for path, version in versions.items() if version != self._versions[path]}
            self._versions = versions
            for source in sources:
                if not changed.isdisjoint(source.paths):
                    await self._reload(source, changed)

    async def _reload(self, source: Reloadable, changed: set[Path]) -> None:
        try:
            await asyncio.to_thread(source.reload)
        except ConfigurationError as error:
            self.failed_reloads += 1
            logger.error("the changed file is not used, the earlier one stays in force: %s", error.message)
        else:
            logger.info("took over the changed %s", ", ".join(map(str, sorted(changed))))


def _versions(paths: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """Returns each file's version: it changes when the file is written, or replaced as Kubernetes replaces secrets."""
    versions = {}
    for path in paths:
        try:
            status = path.stat()
            versions[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            versions[path] = (0, 0, 0)
    return versions
