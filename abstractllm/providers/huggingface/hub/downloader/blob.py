"""The content of one file: fetched, continued, checked."""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined] # loaded lazily

from abstractllm.providers.huggingface.hub.downloader.failures import retry_after

__all__ = ["Blob", "fetch"]

_PAUSES = (0.2, 0.8, 3.2)
"""Seconds before each further attempt; after any new byte the first one comes again."""
_LONGEST_WAIT = 30.0
"""Seconds; a longer wait that the hub asks for is left to the caller."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file's content as the hub describes it; files with equal contents are one."""

    etag: str
    """The content's SHA-256 if it is in large file storage, else git's SHA-1: the name under `blobs`."""
    size: int

    @classmethod
    def of(cls, file: RepoFile) -> Blob:
        """Returns the content that the hub describes.

        Raises:
            ValueError: If the description is malformed.
        """
        etag, size = (file.lfs.sha256, file.lfs.size) if file.lfs else (file.blob_id, file.size)
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag) or size < 0:
            raise ValueError(f"{file.path} has the hash {etag!r} and the size {size}")
        return cls(etag, size)


def fetch(model: str, commit: str, name: str, blob: Blob, folder: Path, locks: Path) -> None:
    """Puts a file's content into the cache; what is there of it already is not fetched again.

    Args:
        model: The hub's name of the model.
        commit: A commit that has the file with this content.
        name: The file.
        blob: Its content.
        folder: The model's folder.
        locks: The folder of the hub's locks on the model's files: if another process downloads the file, this one
            waits for it.

    Raises:
        httpx2.TransportError: If the hub cannot be reached, or breaks off, several times.
        HfHubHTTPError: If the hub refuses.
        OSError: If it cannot be written.
        ValueError: If the content differs from the description.
    """
    path = folder / "blobs" / blob.etag
    part = path.with_name(f"{blob.etag}.incomplete")
    with WeakFileLock(locks / f"{blob.etag}.lock"):
        if path.exists():
            return
        for left in path.parent.glob(f"{blob.etag}.?*.incomplete"):
            left.unlink(missing_ok=True)  # of a download by the hub's library that was killed
        url = hf_hub_url(model, name, revision=commit)
        for _ in range(2):
            _stream(url, part, blob.size)
            if _hash(part, blob.etag) == blob.etag:
                break
            part.unlink()
        else:
            raise ValueError(f"the content of {name} is not what the hub says: its hash is not {blob.etag}")
        part.replace(path)


def _stream(url: str, part: Path, size: int) -> None:
    """Appends to a file until it has its size."""
    attempts = 0
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    part.touch()
    while (begin := part.stat().st_size) < size:
        try:
            _receive(url, part, begin, size)
            failure: Exception = httpx2.RemoteProtocolError("the answer ended early")
        except httpx2.TransportError as error:
            failure = error
        except HfHubHTTPError as error:
            if error.response.status_code != 429 and error.response.status_code < 500:
                raise
            failure = error
        if part.stat().st_size > begin:
            attempts = 0
            continue
        if attempts == len(_PAUSES):
            raise failure
        wait = retry_after(failure) if isinstance(failure, HfHubHTTPError) else None
        if wait is not None and wait > _LONGEST_WAIT:
            raise failure
        time.sleep(_PAUSES[attempts] if wait is None else wait)
        attempts += 1


def _receive(url: str, part: Path, begin: int, size: int) -> None:
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    with get_session().stream("GET", url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        if response.status_code != 206:
            begin = 0  # the server knows no ranges
        with part.open("ab" if begin else "wb") as file:
            for chunk in response.iter_bytes():
                begin += len(chunk)
                if begin > size:
                    raise ValueError(f"more than the {size} bytes that the hub says")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def _hash(path: Path, etag: str) -> str:
    """Returns the file's hash, of the kind that `etag` is."""
    with path.open("rb") as file:
        if len(etag) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
