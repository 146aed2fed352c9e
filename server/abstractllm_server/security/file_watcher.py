"""Files that are read again when they change, while the server runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from abstractllm.errors import AbstractLLMError
from abstractllm_server.telemetry.measurements import Measurement

__all__ = ["FileWatcher", "Reloadable"]

logger = logging.getLogger("abstractllm.server")

_INTERVAL = 1.0
"""Seconds between two looks at the files."""
_SETTLING = 0.2
"""Seconds for which files must have stayed the same before they are read: several are seldom written in one moment."""
_MOST_SETTLINGS = 10
"""The number of times that this is waited for; then they are read as they are."""
_RETRY_INTERVAL = 10.0
"""Seconds after which a source that could not be read is tried again, although its files have not changed."""
_SLOW_LOOK = 30.0
"""Seconds after which a look at the files that has not ended is reported: their file system may hang."""
_LARGEST_FILE = 1 << 20
"""Bytes of a file that is compared by its content."""

_Version = str | tuple[int, ...]


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
    """Looks at files once a second and has those that changed read again; no failure ends that.

    Files are compared by their content, so that neither a coarse clock nor a copy that keeps the time of its original
    hides a change. A change that cannot be used, or cannot be read, is logged and counted once, and tried again, also
    if the files stay as they are.

    Args:
        paths: The files. Create the watcher before they are first read: a change in between is then noticed too.

    Attributes:
        outcomes: The number of reloads for each source's name and outcome, which is `success` or `failure`.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._versions = _versions(paths)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._retry_times: dict[str, float] = {}
        """The sources that could not be read, and when each is tried again."""

    @property
    def failed_reloads(self) -> int:
        """Changes that could not be used."""
        return sum(count for (_, outcome), count in self.outcomes.items() if outcome == "failure")

    async def run(self, sources: Callable[[], Mapping[str, Reloadable]]) -> None:
        """Reloads the sources whose files change, until it is cancelled.

        Args:
            sources: Returns the sources, by name, which may become others.
        """
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self._look(sources())
            except Exception:
                logger.exception("the files of tokens and certificates cannot be looked at; they are tried again")

    def measurements(self) -> Iterator[Measurement]:
        """Returns how many reloads of each source succeeded and failed."""
        for (name, outcome), count in self.outcomes.copy().items():
            yield Measurement("abstractllm.server.files.reloads", count, {"file": name, "outcome": outcome})

    async def _look(self, sources: Mapping[str, Reloadable]) -> None:
        for name in sources:
            for outcome in ("success", "failure"):
                self.outcomes[name, outcome] += 0
        paths = {path for source in sources.values() for path in source.paths}
        versions = await self._read_versions(paths)
        if self._changed(versions):
            versions = await self._settled(paths, versions)
        changed = self._changed(versions)
        # Noted before they are read: what changes meanwhile is seen by the next look.
        self._versions.update(versions)
        for name, source in sources.items():
            self.outcomes.update({(name, "success"): 0, (name, "failure"): 0})  # a metric begins at zero
            changed_paths = changed.intersection(source.paths)
            if changed_paths or self._retry_times.get(name, float("inf")) <= time.monotonic():
                await self._reload(name, source, changed_paths)

    def _changed(self, versions: Mapping[Path, _Version]) -> set[Path]:
        return {path for path, version in versions.items() if version != self._versions.get(path)}

    async def _settled(self, paths: set[Path], versions: dict[Path, _Version]) -> dict[Path, _Version]:
        """Returns the versions of files once they have stayed the same for a moment."""
        for _ in range(_MOST_SETTLINGS):
            await asyncio.sleep(_SETTLING)
            before, versions = versions, await self._read_versions(paths)
            if versions == before:
                break
        return versions

    async def _read_versions(self, paths: Iterable[Path]) -> dict[Path, _Version]:
        reading = asyncio.create_task(asyncio.to_thread(_versions, list(paths)))
        done, _ = await asyncio.wait({reading}, timeout=_SLOW_LOOK)
        if not done:
            logger.error("the files of tokens and certificates could not be read within %.0f s", _SLOW_LOOK)
        return await reading

    async def _reload(self, name: str, source: Reloadable, changed: set[Path]) -> None:
        """Reloads a source; without a change of its files, after a failure, in silence unless that ends it."""
        files = ", ".join(map(str, sorted(changed or source.paths)))
        try:
            await asyncio.to_thread(source.reload)
        except Exception as error:
            self._retry_times[name] = time.monotonic() + _RETRY_INTERVAL
            if changed:
                self.outcomes[name, "failure"] += 1
                reason = error.message if isinstance(error, AbstractLLMError) else f"{type(error).__name__}: {error}"
                logger.error("the changed %s is not used, the earlier one stays in force: %s", files, reason)
        else:
            self._retry_times.pop(name, None)
            self.outcomes[name, "success"] += 1
            logger.info("took over the changed %s", files)


def _versions(paths: Iterable[Path]) -> dict[Path, _Version]:
    return {path: _version(path) for path in paths}


def _version(path: Path) -> _Version:
    """Returns a file's version: a digest of its content; the error's name where it cannot be read."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_FILE:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except OSError as error:
        return type(error).__name__
