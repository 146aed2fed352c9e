"""The downloads of models, as the provider sees them: each in a process of its own, shared by all that want it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import AsyncGenerator

from abstractllm._core.forks import forget_in_forked_child
from abstractllm.errors import AbstractLLMError, InternalError, ProviderUnavailableError, error_class
from abstractllm.providers.huggingface.hub.downloader.messages import FromDownloader, Pull, Pulled, PullFailed, Report
from abstractllm.providers.huggingface.protocol.channel import encode
from abstractllm.providers.huggingface.protocol.child_process import ChildProcess, describe_exit
from abstractllm.providers.huggingface.protocol.errors import copy_error
from abstractllm.providers.huggingface.protocol.watchdog import Watchdog
from abstractllm.types import PullProgress

__all__ = ["DownloadManager", "DownloadSubscriber", "downloads"]

logger = logging.getLogger("abstractllm.pull")

_MODULE = "abstractllm.providers.huggingface.hub.downloader"


class DownloadSubscriber:
    """One caller's view of a download, to be read in the caller's event loop.

    A slow reader misses steps, but no file: of each file it is told the latest.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}
        self._outcome: Pulled | AbstractLLMError | None = None
        self._change: concurrent.futures.Future[None] = concurrent.futures.Future()

    def put(self, message: Report | Pulled | AbstractLLMError) -> None:
        """Hands over what is new, from any thread; nothing comes after the outcome."""
        with self._lock:
            if self._outcome is not None:
                return
            if isinstance(message, Report):
                _replace(self._reports, message)
            else:
                self._outcome = message
            change, self._change = self._change, concurrent.futures.Future()
        if change.set_running_or_notify_cancel():
            change.set_result(None)

    async def reports(self) -> AsyncGenerator[PullProgress, None]:
        """Yields the reports, the last of which has `done` set.

        Raises:
            AbstractLLMError: If the download fails.
        """
        while True:
            with self._lock:
                reports, self._reports = self._reports, {}
                outcome, change = self._outcome, self._change
            for report in reports.values():
                yield PullProgress(
                    report.file,
                    report.file_bytes_done,
                    report.file_bytes_total,
                    report.bytes_done,
                    report.bytes_total,
                    done=False,
                )
            if isinstance(outcome, Pulled):
                yield PullProgress("", 0, None, outcome.size, outcome.size, done=True)
                return
            if outcome is not None:
                raise outcome
            await asyncio.wrap_future(change)


class _Download:
    """A running download.

    Args:
        pull: What to download.
        lock: The manager's lock; it is held by whoever changes the subscribers.
    """

    def __init__(self, pull: Pull, lock: threading.RLock) -> None:
        self.pull = pull
        self.subscribers: set[DownloadSubscriber] = set()
        self.process: ChildProcess[FromDownloader] | None = None
        self._lock = lock
        self._latest: dict[str, Report] = {}
        self._timeout = ""
        """The bound beyond which the process was ended, in words that follow the process."""

    def add(self, subscriber: DownloadSubscriber) -> None:
        """Takes in a subscriber, and tells it what it has missed; the lock is held."""
        for report in self._latest.values():
            subscriber.put(report)
        self.subscribers.add(subscriber)

    def run(self) -> Pulled | AbstractLLMError:
        """Downloads in the calling thread; returns the outcome."""
        process = ChildProcess[FromDownloader](_MODULE, FromDownloader)
        outcome: Pulled | AbstractLLMError | None = None
        try:
            with self._lock:
                self.process = process
                if not self.subscribers:
                    process.channel.close()
            process.channel.send(encode(self.pull))
            outcome = self._watch(process)
        finally:
            status = process.end()
        if outcome is None:
            end = self._timeout or describe_exit(status)
            outcome = ProviderUnavailableError(
                f"model {self.pull.model}: the process of the download {end}; what is there is kept"
            )
        if isinstance(outcome, AbstractLLMError) and self.subscribers:
            logger.warning("%s", outcome.message)
            process.log_output(logging.DEBUG)
        return outcome

    def _watch(self, process: ChildProcess[FromDownloader]) -> Pulled | AbstractLLMError | None:
        """Reads what the process says, and ends it if it gives no sign of life; returns what `_read` does."""

        def end_frozen(reason: str) -> None:
            self._timeout = f"{reason} and was ended"
            process.kill()

        watchdog = Watchdog(process.channel, on_timeout=end_frozen)
        watchdog.start()
        try:
            return self._read(process, watchdog)
        finally:
            watchdog.stop()

    def _read(self, process: ChildProcess[FromDownloader], watchdog: Watchdog) -> Pulled | AbstractLLMError | None:
        """Reads what the process says until its outcome; returns None if its channel closes before."""
        for message in process.channel:
            watchdog.heard(message)
            match message:
                case Report():
                    with self._lock:
                        _replace(self._latest, message)
                        for subscriber in self.subscribers:
                            subscriber.put(message)
                case Pulled():
                    return message
                case PullFailed():
                    return _as_error(message)
        return None


class DownloadManager:
    """Begins downloads, lets callers that want the same share one, and ends those that nobody wants any more."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._downloads: dict[Pull, _Download] = {}
        forget_in_forked_child(self)

    @property
    def running(self) -> list[Pull]:
        """The downloads that run now."""
        with self._lock:
            return list(self._downloads)

    async def subscribe(self, pull: Pull, subscriber: DownloadSubscriber) -> AsyncGenerator[PullProgress, None]:
        """Follows a download, which is begun if it does not run yet.

        Leaving the generator gives up this caller's interest only; with the last one's the download ends. What is on
        the disk is kept, and the next download goes on with it.

        Args:
            pull: What to download; equal ones share one download.
            subscriber: A new one.

        Raises:
            ModelNotFoundError: If the hub has no such model, or the hub must not be asked and it is not in the cache.
            ProviderCredentialsError: If the hub asks for a token that may read it.
            ProviderUnavailableError: If the hub cannot be reached, or the disk is full.
            RateLimitedError: If the hub asks to slow down.
            ConfigurationError: If the cache may not be written to.
        """
        with self._lock:
            download = self._downloads.get(pull)
            is_new = download is None
            if download is None:
                download = self._downloads[pull] = _Download(pull, self._lock)
            download.add(subscriber)
        if is_new:
            threading.Thread(target=self._run, args=(download,), name="pull", daemon=True).start()
        try:
            async with contextlib.aclosing(subscriber.reports()) as reports:
                async for report in reports:
                    yield report
        finally:
            with self._lock:
                download.subscribers.discard(subscriber)
                if not download.subscribers:
                    self._remove(download)
                    if download.process is not None:
                        download.process.channel.close()

    def forget(self) -> None:
        """Called in a forked child: the parent's downloads are not the child's."""
        downloads, self._downloads = self._downloads, {}
        self._lock = threading.RLock()
        for download in downloads.values():
            if download.process is not None:
                download.process.forget()

    def _run(self, download: _Download) -> None:
        """Runs a download, in a thread of its own, and tells its subscribers the outcome."""
        outcome: Pulled | AbstractLLMError
        try:
            outcome = download.run()
        except Exception as error:  # raised further it would leave the subscribers waiting
            model = download.pull.model
            logger.exception("the download of model %s failed", model)
            outcome = InternalError(f"model {model}: the download failed: {type(error).__name__}: {error}")
        with self._lock:
            self._remove(download)
            subscribers = download.subscribers.copy()
        for subscriber in subscribers:
            subscriber.put(outcome if isinstance(outcome, Pulled) else copy_error(outcome))

    def _remove(self, download: _Download) -> None:
        if self._downloads.get(download.pull) is download:
            del self._downloads[download.pull]


downloads = DownloadManager()
"""The downloads of this process."""


def _replace(reports: dict[str, Report], report: Report) -> None:
    """Replaces a file's report and puts it last: the sums in a report must not be older than those before it."""
    reports.pop(report.file, None)
    reports[report.file] = report


def _as_error(failed: PullFailed) -> AbstractLLMError:
    return error_class(failed.reason)(
        failed.message, field=failed.field, upstream_status=failed.upstream_status, retry_after=failed.retry_after
    )
