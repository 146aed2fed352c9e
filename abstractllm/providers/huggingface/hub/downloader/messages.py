"""The messages between a provider and the process that downloads a model; both sides import this file."""

from __future__ import annotations

from msgspec import Struct

from abstractllm.providers.huggingface.protocol.messages import Ping, Pong

__all__ = ["FromDownloader", "Pull", "PullFailed", "Pulled", "Report", "ToDownloader"]


class Pull(Struct, tag=True, frozen=True, kw_only=True):
    """Download a model."""

    model: str
    """A hub id."""
    revision: str
    """A branch, tag or commit."""
    cache_dir: str
    code: bool
    """True if the Python code that comes with the model is needed."""
    local_files_only: bool
    """True to look for it in the cache alone."""


class Report(Struct, tag=True, frozen=True):
    """The progress of the download; the fields are those of `abstractllm.types.PullProgress`."""

    file: str
    file_bytes_done: int
    file_bytes_total: int | None
    bytes_done: int
    bytes_total: int | None


class Pulled(Struct, tag=True, frozen=True):
    """The model is whole."""

    size: int
    """Bytes of its files."""


class PullFailed(Struct, tag=True, frozen=True):
    """The download failed; the fields are those of `AbstractLLMError`."""

    reason: str
    message: str
    field: str | None = None
    upstream_status: int | None = None
    retry_after: float | None = None


ToDownloader = Pull | Ping
FromDownloader = Report | Pulled | PullFailed | Pong
