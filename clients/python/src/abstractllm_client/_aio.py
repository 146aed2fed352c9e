"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc.aio

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from abstractllm_client import _answers, _config
from abstractllm_client._aio_calls import CallsByLoop
from abstractllm_client._base import PAGE_SIZE, Client, EventReader
from abstractllm_client.answers import (
    CachedModel,
    ClearedModels,
    Completion,
    Event,
    LlmInfo,
    LoadProgress,
    PullProgress,
    TextDelta,
    UnloadProgress,
)
from abstractllm_client.errors import AbstractLLMError
from abstractllm_client.messages import Prompt, Tool


class AsyncRemoteLLM(Client):
    """One LLM of a server, for asynchronous code: the methods of `RemoteLLM`, as coroutines.

    It may be used in several event loops, one after the other or at once. Arguments and errors are `RemoteLLM`'s.
    """

    def _prepare(self) -> None:
        self._by_loop = CallsByLoop(self._connection)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The running event loop's connection, for the stubs in `abstractllm_api` and those of other services."""
        return self._by_loop.get().channel

    @overload
    async def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: Literal[False] = False, **parameters: Any
    ) -> str: ...
    @overload
    async def generate(
        self, prompt: Prompt, system_prompt: str | None = None, *, stream: Literal[True], **parameters: Any
    ) -> AsyncIterator[str]: ...
    @overload
    async def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]: ...
    async def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | AsyncIterator[str]:
        """As `RemoteLLM.generate`; awaiting it with `stream=True` gives an asynchronous iterator."""
        if stream:
            return _texts(self.stream(prompt, system_prompt, **parameters))
        return (await self.complete(prompt, system_prompt, **parameters)).text

    async def complete(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """As `RemoteLLM.complete`."""
        request, timeout = self._generate_request(prompt, system_prompt, parameters)
        calls = self._by_loop.get()
        return _answers.completion(await calls.unary(calls.generation.Generate, request, timeout))

    def stream(
        self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any
    ) -> AsyncGenerator[Event, None]:
        """As `RemoteLLM.stream`; close the generator (`contextlib.aclosing`) to end the generation."""
        return self._events(*self._generate_request(prompt, system_prompt, parameters))

    async def _events(
        self, request: generation_pb2.GenerateRequest, timeout: float | None
    ) -> AsyncGenerator[Event, None]:
        calls, reader = self._by_loop.get(), EventReader()
        try:
            async with aclosing(calls.stream(calls.generation.StreamGenerate, request, timeout)) as messages:
                async for message in messages:
                    event = reader.read(message)
                    if event is not None:
                        yield event
        except AbstractLLMError as error:
            reader.note(error)
            raise
        reader.end()

    async def count_tokens(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: Sequence[Tool] = (),
        model: str | None = None,
    ) -> int:
        """As `RemoteLLM.count_tokens`."""
        request = self._count_request(prompt, system_prompt, tools, model)
        calls = self._by_loop.get()
        return (await calls.unary(calls.generation.CountTokens, request, self._timeout)).input_tokens

    async def get_capabilities(self, model: str | None = None) -> dict[str, Any]:
        """As `RemoteLLM.get_capabilities`."""
        request = self._capabilities_request(model)
        calls = self._by_loop.get()
        response = await calls.unary(calls.models.GetCapabilities, request, self._timeout)
        return _answers.capabilities(response.capabilities)

    async def get_config(self) -> dict[str, Any]:
        """As `RemoteLLM.get_config`."""
        return (await self.get_config_and_etag())[0]

    async def get_config_and_etag(self) -> tuple[dict[str, Any], str]:
        """As `RemoteLLM.get_config_and_etag`."""
        request = config_pb2.GetConfigRequest(llm=self._llm)
        calls = self._by_loop.get()
        response = await calls.unary(calls.config.GetConfig, request, self._timeout)
        return _config.decode(response.config), response.etag

    async def set_config(
        self,
        config: Mapping[Any, Any] | None = None,
        *,
        etag: str = "",
        validate_only: bool = False,
        **changes: Any,
    ) -> dict[str, Any]:
        """As `RemoteLLM.set_config`: the server-wide admin call."""
        request = self._set_request(config, changes, etag, validate_only)
        calls = self._by_loop.get()
        return _config.decode((await calls.unary(calls.config.SetConfig, request, self._timeout)).config)

    async def list_llms(self) -> list[LlmInfo]:
        """As `RemoteLLM.list_llms`."""
        calls = self._by_loop.get()
        response = await calls.unary(calls.models.ListLlms, models_pb2.ListLlmsRequest(), self._timeout)
        return [_answers.llm_info(llm) for llm in response.llms]

    async def list_cached_models(self) -> list[CachedModel]:
        """As `RemoteLLM.list_cached_models`."""
        request = models_pb2.ListCachedModelsRequest(llm=self._llm, page_size=PAGE_SIZE)
        calls = self._by_loop.get()
        found: list[CachedModel] = []
        while True:
            response = await calls.unary(calls.models.ListCachedModels, request, self._timeout)
            found += [_answers.cached_model(model) for model in response.models]
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    async def clear_model_cache(
        self, model_name: str | None = None, *, all_models: bool = False, dry_run: bool = False
    ) -> ClearedModels:
        """As `RemoteLLM.clear_model_cache`."""
        request = self._clear_request(model_name, all_models, dry_run)
        calls = self._by_loop.get()
        return _answers.cleared_models(await calls.unary(calls.models.ClearCache, request, self._timeout))

    async def pull_model(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """As `RemoteLLM.pull_model`."""
        request = self._pull_request(model)
        calls = self._by_loop.get()
        async with aclosing(calls.stream(calls.models.PullModel, request, None)) as reports:
            async for report in reports:
                yield _answers.pull_progress(report)

    async def load_model(self) -> AsyncGenerator[LoadProgress, None]:
        """As `RemoteLLM.load_model`."""
        request = models_pb2.LoadModelRequest(llm=self._llm)
        calls = self._by_loop.get()
        async with aclosing(calls.stream(calls.models.LoadModel, request, None)) as reports:
            async for report in reports:
                yield _answers.load_progress(report)

    async def unload_model(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """As `RemoteLLM.unload_model`."""
        request = models_pb2.UnloadModelRequest(llm=self._llm, force=force)
        calls = self._by_loop.get()
        async with aclosing(calls.stream(calls.models.UnloadModel, request, None)) as reports:
            async for report in reports:
                yield _answers.unload_progress(report)

    async def close(self) -> None:
        """Closes the connections; calls that run end with GenerationCancelledError."""
        await asyncio.gather(*map(asyncio.wrap_future, self._by_loop.close_soon()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _texts(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
