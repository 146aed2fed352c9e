"""The asynchronous twins of the synchronous client's methods."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Literal, overload

from abstractllm_client._aio import AsyncRemoteLLM
from abstractllm_client._base import Client
from abstractllm_client.answers import (
    CachedModel,
    ClearedModels,
    Completion,
    Event,
    LlmInfo,
    LoadProgress,
    PullProgress,
    UnloadProgress,
)
from abstractllm_client.messages import Prompt, Tool


class AsyncTwins(Client):
    """The methods named `*_async`; each is the asynchronous client's method of the same name."""

    def _prepare(self) -> None:
        at = self._connection
        self._async = AsyncRemoteLLM(
            at.address,
            self._llm,
            token=at.token,
            tls=at.tls,
            root_certificates=at.root_certificates,
            private_key=at.private_key,
            certificate_chain=at.certificate_chain,
            channel_options=at.options,
            system_prompt=self._system_prompt,
            timeout=self._timeout,
            **self._defaults,
        )

    @overload
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, stream: Literal[False] = False, **parameters: Any
    ) -> str: ...
    @overload
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, *, stream: Literal[True], **parameters: Any
    ) -> AsyncIterator[str]: ...
    @overload
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]: ...
    async def generate_async(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]:
        """As `generate`; awaiting it with `stream=True` gives an asynchronous iterator."""
        return await self._async.generate(prompt, system_prompt, stream, **parameters)

    async def complete_async(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """As `complete`."""
        return await self._async.complete(prompt, system_prompt, **parameters)

    def stream_async(
        self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any
    ) -> AsyncGenerator[Event, None]:
        """As `stream`; close the generator (`contextlib.aclosing`) to end the generation."""
        return self._async.stream(prompt, system_prompt, **parameters)

    async def count_tokens_async(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: Sequence[Tool] = (),
        model: str | None = None,
    ) -> int:
        """As `count_tokens`."""
        return await self._async.count_tokens(prompt, system_prompt, tools=tools, model=model)

    async def get_capabilities_async(self, model: str | None = None) -> dict[str, Any]:
        """As `get_capabilities`."""
        return await self._async.get_capabilities(model)

    async def get_config_async(self) -> dict[str, Any]:
        """As `get_config`."""
        return await self._async.get_config()

    async def get_config_and_etag_async(self) -> tuple[dict[str, Any], str]:
        """As `get_config_and_etag`."""
        return await self._async.get_config_and_etag()

    async def set_config_async(
        self,
        config: Mapping[Any, Any] | None = None,
        *,
        etag: str = "",
        validate_only: bool = False,
        **changes: Any,
    ) -> dict[str, Any]:
        """As `set_config`: the server-wide admin call."""
        return await self._async.set_config(config, etag=etag, validate_only=validate_only, **changes)

    async def list_llms_async(self) -> list[LlmInfo]:
        """As `list_llms`."""
        return await self._async.list_llms()

    async def list_cached_models_async(self) -> list[CachedModel]:
        """As `list_cached_models`."""
        return await self._async.list_cached_models()

    async def clear_model_cache_async(
        self, model_name: str | None = None, *, all_models: bool = False, dry_run: bool = False
    ) -> ClearedModels:
        """As `clear_model_cache`."""
        return await self._async.clear_model_cache(model_name, all_models=all_models, dry_run=dry_run)

    def pull_model_async(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """As `pull_model`."""
        return self._async.pull_model(model)

    def load_model_async(self) -> AsyncGenerator[LoadProgress, None]:
        """As `load_model`."""
        return self._async.load_model()

    def unload_model_async(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """As `unload_model`."""
        return self._async.unload_model(force=force)
