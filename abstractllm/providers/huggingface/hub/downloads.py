"""Downloads of models, seen from the provider: each in a process of its own, shared by all who want it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import AsyncGenerator

from abstractllm import errors
from abstractllm.errors import AbstractLLMError, InternalError, ProviderUnavailableError
from abstractllm.providers.huggingface.hub.downloader.messages import FromPuller, Pull, Pulled, PullFailed, Report
from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.child_process import ChildProcess, describe_exit
from abstractllm.types import PullProgress

__all__ = ["DownloadSubscriber", "follow", "running_pulls"]

logger = logging.getLogger("abstractllm.pull")

_MODULE = "abstractllm.providers.huggingface.hub.downloader"
_REASONS: dict[str, type[AbstractLLMError]] = {
    kind.default_reason: kind
    for kind in (
        errors.ConfigurationError,
        errors.InternalError,
        errors.ModelNotFoundError,
        errors.ProviderCredentialsError,
        errors.ProviderProtocolError,
        errors.ProviderUnavailableError,
        errors.RateLimitedError,
    )
}


class DownloadSubscriber:
    """One caller's view of a download, to be read in the caller's event loop.

    A slow reader misses steps, but no file: of each file it is told the latest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}
        self._end: Pulled | AbstractLLMError | None = None
        self._change: concurrent.futures.Future[None] = concurrent.futures.Future()

    def put(self, report: Report | Pulled | AbstractLLMError) -> None:
        """Hands over what is new, from any thread; nothing comes after the end."""
        with self._lock:
            if self._end is not None:
                return
            if isinstance(report, Report):
                # Put last: the sums of a report must not be older than those of the one before.
                self._reports.pop(report.file, None)
                self._reports[report.file] = report
            else:
                self._end = report
            change, self._change = self._change, concurrent.futures.Future()
        if change.set_running_or_notify_cancel():
            change.set_result(None)

    async def reports(self) -> AsyncGenerator[PullProgress, None]:
        """The reports, the last of which has `done` set.

        Raises:
            AbstractLLMError: If the download fails.
        """
        while True:
            with self._lock:
                reports, self._reports = self._reports, {}
                end, change = self._end, self._change
            for report in reports.values():
                yield PullProgress(
                    report.file,
                    report.file_bytes_done,
                    report.file_bytes_total,
                    report.bytes_done,
                    report.bytes_total,
                    done=False,
                )
            if isinstance(end, Pulled):
                yield PullProgress("", 0, None, end.size, end.size, done=True)
                return
            if end is not None:
                raise end
            await asyncio.wrap_future(change)


class _Download:
    """A download that runs, and those who follow it."""

    def __init__(self, settings: Pull) -> None:
        self.settings = settings
        self.followers: set[DownloadSubscriber] = set()
        self.process: ChildProcess[FromPuller] | None = None
        self._latest: dict[str, Report] = {}

    def add(self, follower: DownloadSubscriber) -> None:
        """Takes in a follower, and tells it what it has missed; the lock is held."""
        for report in self._latest.values():
            follower.put(report)
        self.followers.add(follower)

    def run(self) -> None:
        """Downloads, in a thread of its own."""
        try:
            end = self._follow()
        except Exception as error:  # nobody else would tell the followers
            logger.exception("the download of model %s failed", self.settings.model)
            end = InternalError(f"model {self.settings.model}: the download failed: {type(error).__name__}: {error}")
        with _lock:
            if _downloads.get(self.settings) is self:
                del _downloads[self.settings]
            followers = self.followers.copy()
        for follower in followers:
            # Each has an error of its own: a traceback is added where it is raised.
            follower.put(end if isinstance(end, Pulled) else _copy(end))

    def _follow(self) -> Pulled | AbstractLLMError:
        end: Pulled | AbstractLLMError | None = None
        process = ChildProcess[FromPuller](_MODULE, FromPuller)
        try:
            with _lock:
                self.process = process
                if not self.followers:
                    process.channel.close()
            process.channel.send(encode(self.settings))
            for message in process.channel:
                match message:
                    case Report():
                        self._tell(message)
                    case Pulled():
                        end = message
                        break
                    case PullFailed():
                        end = _as_error(message)
                        break
        finally:
            status = process.end()
        if end is None:
            end = ProviderUnavailableError(
                f"model {self.settings.model}: the process of the download {describe_exit(status)}; what is there is "
                "kept"
            )
        if isinstance(end, AbstractLLMError) and self.followers:
            logger.warning("%s", end.message)
            logger.debug("the last output of process %d:\n%s", process.pid, process.output())
        return end

    def _tell(self, report: Report) -> None:
        with _lock:
            self._latest.pop(report.file, None)
            self._latest[report.file] = report
            for follower in self.followers:
                follower.put(report)


_lock = threading.RLock()
_downloads: dict[Pull, _Download] = {}


async def follow(settings: Pull, follower: DownloadSubscriber) -> AsyncGenerator[PullProgress, None]:
    """Follows a download, which is begun if nobody follows it yet.

    Leaving the generator gives up this caller's interest only; with the last one's the download ends. What is on the
    disk is kept, and the next download goes on with it.

    Args:
        settings: What to download; equal settings share one download.
        follower: A new one.

    Raises:
        ModelNotFoundError: If the hub has no such model, or the hub must not be asked and it is not in the cache.
        ProviderCredentialsError: If the hub asks for a token that may read it.
        ProviderUnavailableError: If the hub cannot be reached, or the disk is full.
        RateLimitedError: If the hub asks to slow down.
        ConfigurationError: If the cache may not be written to.
    """
    with _lock:
        download = _downloads.get(settings)
        is_new = download is None
        if download is None:
            download = _downloads[settings] = _Download(settings)
        download.add(follower)
    if is_new:
        threading.Thread(target=download.run, name="pull", daemon=True).start()
    try:
        async with contextlib.aclosing(follower.reports()) as reports:
            async for report in reports:
                yield report
    finally:
        with _lock:
            download.followers.discard(follower)
            if not download.followers:
                if _downloads.get(settings) is download:
                    del _downloads[settings]
                if download.process is not None:
                    download.process.channel.close()


def running_pulls() -> list[Pull]:
    """What this process downloads now."""
    with _lock:
        return list(_downloads)


def _as_error(failed: PullFailed) -> AbstractLLMError:
    kind = _REASONS.get(failed.reason, InternalError)
    return kind(
        failed.message, field=failed.field, upstream_status=failed.upstream_status, retry_after=failed.retry_after
    )


def _copy(error: AbstractLLMError) -> AbstractLLMError:
    return type(error)(
        error.message, field=error.field, upstream_status=error.upstream_status, retry_after=error.retry_after
    )


def _after_fork() -> None:
    """The parent's downloads are not the child's."""
    global _lock
    _lock = threading.RLock()
    for download in _downloads.values():
        if download.process is not None:
            download.process.forget()
    _downloads.clear()


os.register_at_fork(after_in_child=_after_fork)
