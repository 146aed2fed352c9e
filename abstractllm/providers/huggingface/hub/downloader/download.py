"""One download of a model into the cache.

The hub's library (2.4) begins every file anew: each process writes to another name, which is deleted on failure. So the
contents of the files are fetched here, each into `blobs/<etag>.incomplete`, which the next download goes on with; the
library then puts the links to them in place, and fetches what plain HTTP cannot give (files over 50 GB).
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoFile

from abstractllm.errors import ModelNotFoundError, ProviderUnavailableError
from abstractllm.providers.huggingface.hub import cache
from abstractllm.providers.huggingface.hub.downloader.blob import Blob, fetch
from abstractllm.providers.huggingface.hub.downloader.failures import is_unreachable
from abstractllm.providers.huggingface.hub.downloader.messages import Pull, Report
from abstractllm.providers.huggingface.hub.layout import (
    folder_name,
    is_whole,
    marker,
    markers,
    needed_files,
    snapshot_folder,
)
from abstractllm.providers.huggingface.hub.locks import LOCKS, InUseError, exclusive_lock, shared_lock

__all__ = ["Download"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HTTP_LIMIT = 50 * 10**9
"""Bytes; the hub gives larger files through its storage `xet` alone."""
_WORKERS = 8
_REPORT_INTERVAL = 0.1
"""Seconds between two reports."""


class Download:
    """Brings one revision of a model into the cache.

    Args:
        pull: What to download.
        report: Called with the progress.
    """

    def __init__(self, pull: Pull, report: Callable[[Report], None]) -> None:
        self._pull = pull
        self._report = report
        self._root = Path(pull.cache_dir)
        self._folder = self._root / folder_name(pull.model)
        self._blobs: dict[str, Blob] = {}
        self._reported: dict[str, int] = {}

    def run(self) -> int:
        """Downloads what is missing.

        Returns:
            The bytes of the model's files.

        Raises:
            Exception: Whatever goes wrong; see `failures.as_library_error`.
        """
        if self._pull.local_files_only:
            return self._look_up_in_cache(None)
        try:
            commit = self._commit()
            files = list(HfApi().list_repo_tree(self._pull.model, recursive=True, revision=commit))
        except Exception as error:
            if not is_unreachable(error):
                raise
            return self._look_up_in_cache(error)
        self._blobs = {file.path: Blob.of(file) for file in files if isinstance(file, RepoFile)}
        snapshot = self._folder / "snapshots" / commit
        wanted, is_complete = self._wanted(snapshot)
        if not (is_complete and self._is_done(wanted, snapshot)):
            with shared_lock(self._root, self._folder.name):
                cache.sweep(self._root)
                self._fill(commit, snapshot)
            wanted, _ = self._wanted(snapshot)
        self._write_reference(commit)
        self._tidy()
        return self._size(wanted)

    # The revision and its files.

    def _commit(self) -> str:
        """Returns the commit that the revision is now."""
        if _COMMIT.fullmatch(self._pull.revision):
            return self._pull.revision
        commit = HfApi().model_info(self._pull.model, revision=self._pull.revision).sha
        if commit is None or not _COMMIT.fullmatch(commit):
            raise ValueError(f"{commit!r} is not a commit")
        return commit

    def _wanted(self, snapshot: Path) -> tuple[list[str], bool]:
        """Returns the files that are needed, as far as they are known yet; see `needed_files`."""

        def read(name: str) -> bytes | None:
            for path in (snapshot / name, self._folder / "blobs" / self._blobs[name].etag):
                with suppress(FileNotFoundError):
                    return path.read_bytes()
            return None

        names, is_complete = needed_files(self._blobs, read, code=self._pull.code)
        if missing := [name for name in names if name not in self._blobs]:
            raise ModelNotFoundError(f"the hub lacks files that it names: {', '.join(missing[:3])}", field="model")
        return names, is_complete

    def _is_done(self, names: Iterable[str], snapshot: Path) -> bool:
        whole = all((snapshot / name).exists() for name in names)
        return whole and not marker(self._folder, snapshot.name).exists()

    def _look_up_in_cache(self, failure: Exception | None) -> int:
        """Returns the size of a model that is whole in the cache.

        Raises:
            ModelNotFoundError: If it is not, and must not be downloaded.
            Exception: `failure`, if it is not.
        """
        snapshot = snapshot_folder(self._folder, self._pull.revision)
        is_commit = _COMMIT.fullmatch(snapshot.name) and snapshot.parent == self._folder / "snapshots"
        if is_commit and is_whole(self._root, snapshot):
            return sum(path.stat().st_size for path in snapshot.rglob("*") if path.is_file())
        if failure is not None:
            raise failure
        detail = ""
        if snapshot.is_dir():
            detail = " (files are missing)"
        elif markers(self._folder):
            detail = " (a download of it has broken off)"
        raise ModelNotFoundError(
            f"revision {self._pull.revision!r} is not in the cache {self._root}{detail}, and local_files_only, or "
            "HF_HUB_OFFLINE, forbids to download it",
            field="model",
        )

    # Filling the cache.

    def _fill(self, commit: str, snapshot: Path) -> None:
        (self._folder / "blobs").mkdir(parents=True, exist_ok=True)
        marker(self._folder, commit).write_text(self._pull.revision, "utf-8")
        locks = self._root / LOCKS / self._folder.name
        locks.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            is_complete = False
            while not is_complete:
                names, is_complete = self._wanted(snapshot)
                missing = [name for name in names if not (snapshot / name).exists()]
                self._check_room(missing)
                self._wait(
                    [
                        pool.submit(fetch, self._pull.model, commit, name, self._blobs[name], self._folder, locks)
                        for name in missing
                        if self._blobs[name].size <= _HTTP_LIMIT
                    ],
                    names,
                    is_complete,
                )
            names, _ = self._wanted(snapshot)
            self._wait([pool.submit(self._link, commit, names)], names, is_complete=True)
            marker(self._folder, commit).unlink(missing_ok=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _link(self, commit: str, names: list[str]) -> None:
        snapshot_download(
            self._pull.model,
            revision=commit,
            cache_dir=self._root,
            allow_patterns=[glob.escape(name) for name in names],
            max_workers=_WORKERS,
        )

    def _write_reference(self, commit: str) -> None:
        """Writes which commit the branch or tag is; last of all, so that it never leads to files that are missing."""
        if commit == self._pull.revision:
            return
        path = self._folder / "refs" / self._pull.revision
        with suppress(OSError):
            if path.read_text("ascii") == commit:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(commit, "ascii")
        temporary.replace(path)

    def _tidy(self) -> None:
        """Deletes what broken-off downloads left behind of commits that the revision was before."""
        outdated = [path for path in markers(self._folder) if path.read_text("utf-8") == self._pull.revision]
        if not outdated:
            return
        with suppress(InUseError, OSError), exclusive_lock(self._root, self._folder.name):
            for path in outdated:
                shutil.rmtree(self._folder / "snapshots" / path.stem, ignore_errors=True)
                path.unlink()
            if not markers(self._folder):
                for part in (self._folder / "blobs").glob("*.incomplete"):
                    part.unlink()

    def _check_room(self, names: Iterable[str]) -> None:
        sizes = self._on_disk()
        missing = sum(max(0, blob.size - sizes.get(blob.etag, 0)) for blob in {self._blobs[name] for name in names})
        free = shutil.disk_usage(self._folder).free
        if missing > free:
            raise ProviderUnavailableError(
                f"the disk of {self._root} has no room: {missing} bytes are to be downloaded, {free} are free"
            )

    # Progress: what is on the disk counts, whichever process has put it there.

    def _wait(self, futures: list[Future[None]], names: list[str], is_complete: bool) -> None:
        """Waits for all futures and reports the progress; raises the first failure."""
        pending = set(futures)
        while pending:
            done, pending = wait(pending, _REPORT_INTERVAL, FIRST_EXCEPTION)
            self._report_progress(names, is_complete)
            for future in done:
                future.result()

    def _report_progress(self, names: list[str], is_complete: bool) -> None:
        sizes = self._on_disk()
        done = {name: min(self._blobs[name].size, sizes.get(self._blobs[name].etag, 0)) for name in names}
        total = self._size(names) if is_complete else None
        for name, size in done.items():
            if self._reported.get(name) != size:
                self._reported[name] = size
                self._report(Report(name, size, self._blobs[name].size, sum(done.values()), total))

    def _on_disk(self) -> dict[str, int]:
        """Returns the bytes that are on the disk, by etag."""
        sizes: dict[str, int] = {}
        with os.scandir(self._folder / "blobs") as entries:
            for entry in entries:
                with suppress(OSError):
                    etag = entry.name.partition(".")[0]
                    sizes[etag] = max(sizes.get(etag, 0), entry.stat().st_size)
        return sizes

    def _size(self, names: Iterable[str]) -> int:
        return sum(self._blobs[name].size for name in names)
