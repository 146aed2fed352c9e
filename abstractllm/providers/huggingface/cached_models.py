"""The models of a local LLM on this machine's disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from abstractllm._core import execution
from abstractllm.errors import AbstractLLMError, ModelNotFoundError
from abstractllm.interface import AbstractLLMInterface
from abstractllm.providers.huggingface.config import DEFAULT_CACHE_DIR, HuggingFaceConfig
from abstractllm.providers.huggingface.engine.pool import EnginePool
from abstractllm.providers.huggingface.hub.cache import cache_size
from abstractllm.providers.huggingface.hub.model_cache import ModelCache, clear_models, list_models
from abstractllm.providers.huggingface.protocol.messages import Load
from abstractllm.types import CachedModel, ClearedModels, PullProgress

__all__ = ["CachedModels"]


class CachedModels(AbstractLLMInterface[HuggingFaceConfig]):
    """The part of a local LLM that keeps models on a disk, beside the engines that load them from there.

    Args:
        config: The keys of `HuggingFaceConfig`.
    """

    provider = "huggingface"
    config_type = HuggingFaceConfig
    DEFAULT_CACHE_DIR = DEFAULT_CACHE_DIR
    """The folder of the model cache where the configuration names none."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._pool = EnginePool(self._changed)
        self._cache = ModelCache(self)

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
        with self._named(chosen):
            async with aclosing(self._cache.pull(config.load_settings(chosen))) as reports:
                async for report in reports:
                    yield report

    async def cached_models(self) -> list[CachedModel]:
        """Returns the models in `cache_dir`, sorted by name."""
        return await asyncio.to_thread(list_models, _expanded(self.config.cache_dir))

    async def clear_cache(self, model: str | None, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Deletes one model, or all of them if `model` is None, from `cache_dir`.

        Returns:
            The names of what was (or, in a dry run, would be) deleted, and the bytes that it frees.

        Raises:
            ModelNotFoundError: If the cache holds no such model.
            ModelInUseError: If one of them is loaded or being downloaded, by this process or another one; nothing is
                deleted then.
        """
        return await asyncio.to_thread(clear_models, _expanded(self.config.cache_dir), model, dry_run=dry_run)

    @staticmethod
    def list_cached_models(cache_dir: str | None = None) -> list[CachedModel]:
        """Returns the models in the local cache, sorted by name; an empty list if there is no cache.

        Args:
            cache_dir: `DEFAULT_CACHE_DIR` if absent.
        """
        return list_models(_expanded(cache_dir))

    @staticmethod
    def clear_model_cache(model_name: str | None = None, cache_dir: str | None = None) -> ClearedModels:
        """Deletes one model from the local cache, or all of them; there is nothing to do for one that is not there.

        Args:
            model_name: A name that `list_cached_models` gives; all models if absent.
            cache_dir: `DEFAULT_CACHE_DIR` if absent.

        Raises:
            ModelInUseError: If one of them is loaded or being downloaded, by this process or another one; nothing is
                deleted then.
        """
        try:
            removed, freed = clear_models(_expanded(cache_dir), model_name)
        except ModelNotFoundError:
            return ClearedModels((), 0)
        return ClearedModels(tuple(removed), freed)

    @property
    def model_cache_bytes(self) -> Mapping[str, int]:
        """The bytes of its model cache, by the cache's folder."""
        folder = _expanded(self.config.cache_dir)
        return {folder: cache_size(folder)}

    @property
    def models_in_use(self) -> list[Load]:
        """The models that are loaded, or are being loaded."""
        return self._pool.models_in_use

    @contextmanager
    def _named(self, model: str = "") -> Iterator[None]:
        """Names the LLM in errors, and the model: the configured one if none is given."""
        try:
            yield
        except AbstractLLMError as error:
            error.fill(provider=self.provider, llm=self.name, model=model or self.config.model)
            raise


def _expanded(cache_dir: str | None) -> str:
    return str(Path(cache_dir or DEFAULT_CACHE_DIR).expanduser())
