"""What a local LLM does with the models on this machine's disk."""

from __future__ import annotations

import asyncio
import threading
import weakref
from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from abstractllm._core import execution
from abstractllm.errors import AbstractLLMError, ModelNotFoundError, ServerShuttingDownError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface.config import DEFAULT_CACHE_DIR, HuggingFaceConfig
from abstractllm.providers.huggingface.hub import cache
from abstractllm.providers.huggingface.hub.downloader.messages import Pull
from abstractllm.providers.huggingface.hub.downloads import DownloadSubscriber, follow
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.types import CachedModel, ClearedModels, PullProgress

__all__ = ["ModelCache"]

_lock = threading.Lock()
_llms: weakref.WeakSet[ModelCache] = weakref.WeakSet()


class ModelCache(AbstractLLMInterface[HuggingFaceConfig]):
    """The part of a local LLM that lists, downloads and deletes models."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._followers: set[DownloadSubscriber] = set()
        with _lock:
            _llms.add(self)

    @abstractmethod
    def _kept_models(self) -> list[Load]:
        """What this LLM has loaded, or is loading."""

    async def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads the model's files into `cache_dir`, as far as they are not there; see `AbstractLLMInterface.pull`.

        All who want the same at the same time share one download. Of the files only those are fetched that loading the
        model takes. There is nothing to do for a directory, nor for the demo model.

        Raises:
            ModelNotFoundError: If `model` is not listed, if the hub has no such model, or if the hub must not be asked
                and the model is not whole in the cache.
            ProviderCredentialsError: If the hub asks for a token that may read it.
            ProviderUnavailableError: If the hub cannot be reached, or the disk is full.
            RateLimitedError: If the hub asks to slow down.
            ServerShuttingDownError: If the LLM is closed meanwhile.
        """
        config = self.config
        chosen = execution.choose_model(self, config, model, "model")
        settings = config.load_settings(chosen)
        follower = DownloadSubscriber()
        self._followers.add(follower)
        try:
            if settings.is_directory:
                if not await asyncio.to_thread(Path(settings.model).is_dir):
                    raise ModelNotFoundError(f"model: there is no directory {settings.model}", field="model")
                yield PullProgress("", 0, None, 0, 0, done=True)
                return
            async with aclosing(follow(_what(settings), follower)) as reports:
                async for report in reports:
                    yield report
        except AbstractLLMError as error:
            error.fill(provider=self.provider, llm=self.name, model=chosen)
            raise
        finally:
            self._followers.discard(follower)

    def _end_pulls(self) -> None:
        """Ends the downloads that this LLM's callers follow, unless others do too."""
        for follower in tuple(self._followers):
            follower.put(ServerShuttingDownError(f"LLM {self.name} was closed"))

    async def cached_models(self) -> list[CachedModel]:
        """The models in `cache_dir`, sorted by name."""
        directory = _directory(self.config.cache_dir)
        return await asyncio.to_thread(cache.list_models, directory, _used_by(directory))

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them if `model` is None, from `cache_dir`.

        Returns:
            The names of what was (or, in a dry run, would be) deleted, and the bytes that it frees.

        Raises:
            ModelNotFoundError: If the cache holds no such model.
            ModelInUseError: If one of them is loaded or being downloaded, here or in another process; nothing is
                deleted then.
        """
        directory = _directory(self.config.cache_dir)
        return await asyncio.to_thread(cache.clear, directory, model, used_by=_used_by(directory), dry_run=dry_run)

    @staticmethod
    def list_cached_models(cache_dir: str | None = None) -> list[CachedModel]:
        """The models in the local cache, sorted by name; empty if there is no cache.

        Args:
            cache_dir: `~/.cache/abstractllm/models` if absent.
        """
        directory = _directory(cache_dir)
        return cache.list_models(directory, _used_by(directory))

    @staticmethod
    def clear_model_cache(model_name: str | None = None, cache_dir: str | None = None) -> ClearedModels:
        """Deletes one model from the local cache, or all of them.

        Args:
            model_name: A name that `list_cached_models` gives; all models if absent.
            cache_dir: `~/.cache/abstractllm/models` if absent.

        Raises:
            ModelNotFoundError: If the cache holds no such model.
            ModelInUseError: If one of them is loaded or being downloaded, here or in another process; nothing is
                deleted then.
        """
        directory = _directory(cache_dir)
        removed, freed = cache.clear(directory, model_name, used_by=_used_by(directory))
        return ClearedModels(tuple(removed), freed)


def _what(settings: Load) -> Pull:
    return Pull(
        model=settings.model,
        revision=settings.revision or "main",
        cache_dir=str(Path(settings.cache_dir).absolute()),
        code=settings.trust_remote_code,
        local_files_only=settings.local_files_only,
    )


def _directory(cache_dir: str | None) -> str:
    return str(Path(cache_dir or DEFAULT_CACHE_DIR).expanduser())


def _used_by(directory: str) -> dict[str, list[str]]:
    """The cached models that this process has loaded or is loading, and the names of the LLMs that use them."""
    with _lock:
        llms = list(_llms)
    used: dict[str, list[str]] = {}
    for llm in sorted(llms, key=lambda llm: llm.name):
        for settings in llm._kept_models():
            is_here = not settings.is_directory and Path(settings.cache_dir).resolve() == Path(directory).resolve()
            if is_here and llm.name not in used.setdefault(settings.model, []):
                used[settings.model].append(llm.name)
    return used
