"""The models of the hub on this machine's disk, and the LLMs of this process that use them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from abstractllm.errors import AbstractLLMError
from abstractllm.providers.huggingface.hub import cache
from abstractllm.providers.huggingface.hub.downloader.messages import Pull
from abstractllm.providers.huggingface.hub.downloads import DownloadSubscriber, downloads
from abstractllm.providers.huggingface.hub.layout import no_directory_error
from abstractllm.providers.huggingface.protocol.errors import copy_error
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.types import CachedModel, PullProgress

__all__ = ["ModelCache", "ModelUser", "clear_models", "list_models"]


class ModelUser(Protocol):
    """An LLM that may have models of a cache loaded."""

    name: str
    """Its name in messages."""

    @property
    def models_in_use(self) -> Sequence[Load]:
        """The models that it has loaded, or is loading."""


_lock = threading.Lock()
_users: weakref.WeakSet[ModelUser] = weakref.WeakSet()


class ModelCache:
    """The cache as one LLM uses it.

    Args:
        user: The LLM; it is not kept alive. What it has loaded nobody of this process deletes.
    """

    def __init__(self, user: ModelUser) -> None:
        self._subscribers: set[DownloadSubscriber] = set()
        with _lock:
            _users.add(user)

    async def pull(self, load_settings: Load) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model's files, as far as they are not there; the last report has `done` set.

        All who want the same at the same time share one download. There is nothing to do for a directory.

        Raises:
            ModelNotFoundError: If there is no such directory, if the hub has no such model, or if the hub must not be
                asked and the model is not whole in the cache.
            AbstractLLMError: As `DownloadManager.subscribe`.
        """
        if load_settings.is_directory:
            if not await asyncio.to_thread(Path(load_settings.model).is_dir):
                raise no_directory_error(load_settings.model)
            yield PullProgress("", 0, None, 0, 0, done=True)
            return
        subscriber = DownloadSubscriber()
        self._subscribers.add(subscriber)
        try:
            async with aclosing(downloads.subscribe(_pull_of(load_settings), subscriber)) as reports:
                async for report in reports:
                    yield report
        finally:
            self._subscribers.discard(subscriber)

    def end_pulls(self, reason: AbstractLLMError) -> None:
        """Ends the LLM's calls of `pull`; a download goes on if callers of other LLMs want it too."""
        for subscriber in tuple(self._subscribers):
            subscriber.put(copy_error(reason))


def list_models(cache_dir: str) -> list[CachedModel]:
    """Returns the models in a cache with the LLMs of this process that use them; see `cache.list_models`."""
    return cache.list_models(cache_dir, _users_by_model(cache_dir))


def clear_models(cache_dir: str, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
    """Deletes one model, or all of them, unless an LLM of this process uses it; see `cache.clear`."""
    return cache.clear(cache_dir, model, used_by=_users_by_model(cache_dir), dry_run=dry_run)


def _pull_of(load_settings: Load) -> Pull:
    return Pull(
        model=load_settings.model,
        revision=load_settings.revision or "main",
        cache_dir=str(Path(load_settings.cache_dir).absolute()),
        code=load_settings.trust_remote_code,
        local_files_only=load_settings.local_files_only,
    )


def _users_by_model(cache_dir: str) -> dict[str, list[str]]:
    """Returns the models of a cache that this process has loaded or is loading, each with the names of its LLMs."""
    with _lock:
        users = list(_users)
    root = Path(cache_dir).resolve()
    names: dict[str, list[str]] = {}
    for user in sorted(users, key=lambda user: user.name):
        for model in user.models_in_use:
            is_in_cache = not model.is_directory and Path(model.cache_dir).resolve() == root
            if is_in_cache and user.name not in names.setdefault(model.model, []):
                names[model.model].append(user.name)
    return names
