"""The asynchronous client.

The one source of both clients: the synchronous one is generated from this file by tools/async_to_sync.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Unpack, overload

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from abstractllm_client import _answers, _config
from abstractllm_client._aio_calls import AsyncClient
from abstractllm_client._base import PAGE_SIZE, EventReader
from abstractllm_client.answers import (
    CachedModel,
    Capabilities,
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
from abstractllm_client.options import ConfigValues, GenerationOptions


class AsyncRemoteLLM(AsyncClient):
    """One LLM of a server, for asynchronous code.

    It may be used in several event loops, one after the other or at once.

    Example:
        ```python
        async with AsyncRemoteLLM("127.0.0.1:50051", temperature=0) as llm:
            print(await llm.generate("What is the capital of France?"))
        ```

    Args:
        address: `host:port`, `dns:///name:port` (calls go to all its addresses in turn), or `unix:/path/of/a/socket`.
        llm: The name of an LLM of the server's configuration; empty for its default.
        token: A bearer token. Without TLS it travels in the clear.
        tls: True for TLS with the system's root certificates; any of the three certificates below imply it.
        root_certificates: PEM of the roots to trust instead of the system's.
        private_key: PEM of the client's key, for mutual TLS.
        certificate_chain: PEM of the client's certificates, for mutual TLS.
        channel_options: Further gRPC channel options; they win over the client's.
        metadata: Names and values that go with every call, such as a trace context (`traceparent`), or a function that
            returns them and is called for each call.
        load_balancing: `round_robin`, or `weighted_round_robin`: fewer calls to servers with more to do, as they tell.
        **parameters: Defaults of this client for the options of `generate`, and for `system_prompt`. A `timeout`
            (seconds) also bounds every other call except the progress streams.

    Raises:
        ConfigurationError: For an address, token or certificate that cannot be one.
        UnsupportedParameterError: For a parameter that is not known.
        InvalidRequestError: For a parameter of the wrong type.
    """

    # Generation.

    @overload
    async def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[GenerationOptions],
    ) -> str: ...
    @overload
    async def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        stream: Literal[True],
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[str, None]: ...
    @overload
    async def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | AsyncGenerator[str, None]: ...
    async def generate(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        stream: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> str | AsyncGenerator[str, None]:
        """Answers a prompt with text.

        Example:
            ```python
            text = await llm.generate("What is the capital of France?", temperature=0)
            async for piece in await llm.generate("Tell me a story.", stream=True, max_tokens=200):
                print(piece, end="", flush=True)
            ```

        Args:
            prompt: Text, or a list of messages.
            system_prompt: Replaces the conversation's system message.
            stream: True for a generator of the answer's pieces instead of the whole. Leaving or closing the generator
                ends the generation.
            **options: Generation parameters (`temperature`, `max_tokens`, ...) and any of `response_format`,
                `tools`, `tool_choice`, `provider_options`, `request_id`, `labels`, `parameters_policy` and `timeout`
                (seconds). `None` means unset.

        Returns:
            The answer's text, or a generator of its pieces.

        Raises:
            AbstractLLMError: One of its subclasses, for whatever goes wrong.
        """
        if stream:
            return _texts(self.stream(prompt, system_prompt, **options))
        completion = await self.complete(prompt, system_prompt, **options)
        return completion.text

    async def complete(
        self, prompt: Prompt, system_prompt: str | None = None, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Answers a prompt with everything there is to know of the answer; arguments and errors as `generate`."""
        request, timeout = self._generate_request(prompt, system_prompt, options)
        calls = self._calls
        response = await calls.unary(calls.generation.Generate, request, timeout)
        return _answers.completion(response)

    def stream(
        self, prompt: Prompt, system_prompt: str | None = None, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Event, None]:
        """Answers a prompt as events, `Started` first and `Finished` last; arguments and errors as `generate`.

        Example:
            ```python
            async with aclosing(llm.stream("Tell me a story.")) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        print(event.text, end="", flush=True)
            ```

        Returns:
            A generator; leaving or closing it (`contextlib.aclosing`) ends the generation.
        """
        return self._events(*self._generate_request(prompt, system_prompt, options))

    async def _events(
        self, request: generation_pb2.GenerateRequest, timeout: float | None
    ) -> AsyncGenerator[Event, None]:
        calls, reader = self._calls, EventReader()
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

    # Questions.

    async def count_tokens(
        self,
        prompt: Prompt,
        system_prompt: str | None = None,
        *,
        tools: Sequence[Tool] = (),
        model: str | None = None,
    ) -> int:
        """Counts the tokens that a prompt takes, special tokens and chat template included.

        Raises:
            UnsupportedFeatureError: If the LLM's provider cannot count.
        """
        request = self._count_request(prompt, system_prompt, tools, model)
        calls = self._calls
        response = await calls.unary(calls.generation.CountTokens, request, self._timeout)
        return response.input_tokens

    async def get_capabilities(self, model: str | None = None) -> Capabilities:
        """Reads the abilities and limits of the LLM, as attributes and by the names of `ModelCapability`.

        Args:
            model: One of the models that the LLM's configuration lists; the default one if absent.
        """
        request = self._capabilities_request(model)
        calls = self._calls
        response = await calls.unary(calls.models.GetCapabilities, request, self._timeout)
        return _answers.capabilities(response.capabilities)

    async def list_llms(self) -> list[LlmInfo]:
        """Lists all LLMs of the server and their states."""
        calls = self._calls
        response = await calls.unary(calls.models.ListLlms, models_pb2.ListLlmsRequest(), self._timeout)
        return [_answers.llm_info(llm) for llm in response.llms]

    # Configuration of the server.

    async def get_config(self) -> ConfigValues:
        """Reads the LLM's configuration on the server: a dictionary without unset keys. Needs the `admin` role."""
        config, _ = await self.get_config_and_etag()
        return config

    async def get_config_and_etag(self) -> tuple[ConfigValues, str]:
        """Reads the LLM's configuration on the server, and the etag to change it with. Needs the `admin` role."""
        request = config_pb2.GetConfigRequest(llm=self._llm)
        calls = self._calls
        response = await calls.unary(calls.config.GetConfig, request, self._timeout)
        return _config.decode(response.config), response.etag

    async def set_config(
        self,
        config: Mapping[Any, Any] | None = None,
        *,
        etag: str = "",
        validate_only: bool = False,
        **changes: Any,
    ) -> ConfigValues:
        """Changes the LLM's configuration on the server, for every caller of it. Needs the `admin` role.

        The defaults of this client are the keyword arguments of its constructor; they stay as they are.

        Args:
            config: New values by key; `None` clears a key.
            etag: Change it only if it is still the configuration of this etag (`get_config_and_etag`).
            validate_only: Only check the change, and return the configuration that it would give.
            **changes: The same as `config`, as keyword arguments.

        Returns:
            The configuration after the change, as `get_config` gives it.

        Raises:
            ConfigurationError: If a key cannot be set over the network or its value is malformed; nothing is changed
                then.
            InvalidRequestError: If the server refuses a value; nothing is changed then.
            StaleConfigError: If `etag` is not the current one.
        """
        request = self._set_request(config, changes, etag, validate_only)
        calls = self._calls
        response = await calls.unary(calls.config.SetConfig, request, self._timeout)
        return _config.decode(response.config)

    # Models of the server.

    async def list_cached_models(self) -> list[CachedModel]:
        """Lists the models in the cache on the server's disk, by name. Needs the `admin` role."""
        request = models_pb2.ListCachedModelsRequest(llm=self._llm, page_size=PAGE_SIZE)
        calls = self._calls
        models: list[CachedModel] = []
        while True:
            response = await calls.unary(calls.models.ListCachedModels, request, self._timeout)
            models += [_answers.cached_model(model) for model in response.models]
            request.page_token = response.next_page_token
            if not request.page_token:
                return models

    async def clear_model_cache(
        self, model_name: str | None = None, *, all_models: bool = False, dry_run: bool = False
    ) -> ClearedModels:
        """Deletes models from the cache on the server's disk. Needs the `admin` role.

        Args:
            model_name: The model to delete. Unlike on a local cache, leaving it out does not mean all of them.
            all_models: Delete every model.
            dry_run: Delete nothing, and return what would be deleted.

        Raises:
            InvalidRequestError: For neither a model nor `all_models=True`, or for both.
            ModelInUseError: If an LLM uses the model.
        """
        request = self._clear_request(model_name, all_models, dry_run)
        calls = self._calls
        response = await calls.unary(calls.models.ClearCache, request, self._timeout)
        return _answers.cleared_models(response)

    async def pull_model(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model to the server's disk and reports progress. Needs the `admin` role.

        Leaving or closing the generator detaches this caller; the last one leaving stops the download.

        Args:
            model: One of the models that the LLM's configuration lists; the default one if absent.
        """
        request = self._pull_request(model)
        calls = self._calls
        async with aclosing(calls.stream(calls.models.PullModel, request, None)) as reports:
            async for report in reports:
                yield _answers.pull_progress(report)

    async def load_model(self) -> AsyncGenerator[LoadProgress, None]:
        """Loads the LLM's model into the server's memory and reports progress. Needs the `admin` role.

        Leaving or closing the generator does not stop the load.
        """
        request = models_pb2.LoadModelRequest(llm=self._llm)
        calls = self._calls
        async with aclosing(calls.stream(calls.models.LoadModel, request, None)) as reports:
            async for report in reports:
                yield _answers.load_progress(report)

    async def unload_model(self, *, force: bool = False) -> AsyncGenerator[UnloadProgress, None]:
        """Unloads the LLM's model and reports progress. Needs the `admin` role.

        Args:
            force: Cancel the requests that run; otherwise they make it fail with ModelInUseError.
        """
        request = models_pb2.UnloadModelRequest(llm=self._llm, force=force)
        calls = self._calls
        async with aclosing(calls.stream(calls.models.UnloadModel, request, None)) as reports:
            async for report in reports:
                yield _answers.unload_progress(report)


async def _texts(events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
