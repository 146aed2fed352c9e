"""The synchronous client."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc

from abstractllm_api.v1 import config_pb2, generation_pb2, models_pb2
from abstractllm_client import _answers, _config
from abstractllm_client._base import PAGE_SIZE, EventReader
from abstractllm_client._sync_calls import Calls
from abstractllm_client._twins import AsyncTwins
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


class RemoteLLM(AsyncTwins):
    """One LLM of a server.

    It may be used from any thread. Methods named `*_async` are the same for asynchronous code, in any event loop.

    Args:
        address: `host:port`, `dns:///name:port` (calls go to all its addresses in turn), or `unix:/path/of/a/socket`.
        llm: The name of an LLM of the server's configuration; empty for its default.
        token: A bearer token. Without TLS it travels in the clear.
        tls: Whether to use TLS with the system's root certificates; certificates given below imply it.
        root_certificates: PEM of the roots to trust instead of the system's.
        private_key: PEM of the client's key, for mutual TLS.
        certificate_chain: PEM of the client's certificates, for mutual TLS.
        channel_options: Further gRPC channel options; they win over the client's own.
        metadata: What goes with every call, such as a trace context (`traceparent`), or a function that gives it, which
            is asked at each call.
        **parameters: Defaults of this client for what `generate` takes, `system_prompt` and `timeout` (seconds)
            included; the timeout also bounds every other call but progress streams.

    Raises:
        ConfigurationError: For an address, token or certificate that cannot be one.
        UnsupportedParameterError: For a parameter that is not known.
        InvalidRequestError: For a parameter of the wrong type.
    """

    def _prepare(self) -> None:
        super()._prepare()
        self._calls = Calls(self._connection)

    @property
    def channel(self) -> grpc.Channel:
        """The connection, for the stubs in `abstractllm_api` and those of other services."""
        return self._calls.channel

    # Generation.

    @overload
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: Literal[False] = False, **parameters: Any
    ) -> str: ...
    @overload
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, *, stream: Literal[True], **parameters: Any
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | Iterator[str]: ...
    def generate(
        self, prompt: Prompt, system_prompt: str | None = None, stream: bool = False, **parameters: Any
    ) -> str | Iterator[str]:
        """Answers a prompt.

        Args:
            prompt: Text, or a list of messages.
            system_prompt: Replaces the conversation's own system message.
            stream: Whether to return an iterator over the answer's pieces instead of the whole. Leaving the iterator
                ends the generation.
            **parameters: Generation parameters (`temperature`, `max_tokens`, ...) and any of `response_format`,
                `tools`, `tool_choice`, `provider_options`, `request_id`, `labels`, `parameters_policy` and `timeout`
                (seconds).

        Returns:
            The answer's text, or an iterator over its pieces.

        Raises:
            AbstractLLMError: One of its subclasses, for whatever goes wrong.
        """
        if stream:
            return _texts(self._events(*self._generate_request(prompt, system_prompt, parameters)))
        return self.complete(prompt, system_prompt, **parameters).text

    def complete(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Completion:
        """Answers a prompt with everything there is to know of the answer; arguments and errors as `generate`."""
        request, timeout = self._generate_request(prompt, system_prompt, parameters)
        return _answers.completion(self._calls.unary(self._calls.generation.Generate, request, timeout))

    def stream(self, prompt: Prompt, system_prompt: str | None = None, **parameters: Any) -> Iterator[Event]:
        """Answers a prompt as events, `Started` first and `Finished` last; arguments and errors as `generate`."""
        return self._events(*self._generate_request(prompt, system_prompt, parameters))

    def _events(self, request: generation_pb2.GenerateRequest, timeout: float | None) -> Generator[Event, None, None]:
        reader = EventReader()
        try:
            with closing(self._calls.stream(self._calls.generation.StreamGenerate, request, timeout)) as messages:
                for message in messages:
                    event = reader.read(message)
                    if event is not None:
                        yield event
        except AbstractLLMError as error:
            reader.note(error)
            raise
        reader.end()

    # Questions.

    def count_tokens(
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
        return self._calls.unary(self._calls.generation.CountTokens, request, self._timeout).input_tokens

    def get_capabilities(self, model: str | None = None) -> dict[str, Any]:
        """What the LLM can do, by the names of `ModelCapability`.

        Args:
            model: One of the models that the LLM's configuration lists; the default one if absent.
        """
        request = self._capabilities_request(model)
        response = self._calls.unary(self._calls.models.GetCapabilities, request, self._timeout)
        return _answers.capabilities(response.capabilities)

    def list_llms(self) -> list[LlmInfo]:
        """All LLMs of the server, and how they are."""
        response = self._calls.unary(self._calls.models.ListLlms, models_pb2.ListLlmsRequest(), self._timeout)
        return [_answers.llm_info(llm) for llm in response.llms]

    # Configuration of the server.

    def get_config(self) -> dict[str, Any]:
        """The LLM's configuration on the server: flat, without unset keys. Needs the `admin` role."""
        return self.get_config_and_etag()[0]

    def get_config_and_etag(self) -> tuple[dict[str, Any], str]:
        """The LLM's configuration on the server, and the etag to change it with. Needs the `admin` role."""
        request = config_pb2.GetConfigRequest(llm=self._llm)
        response = self._calls.unary(self._calls.config.GetConfig, request, self._timeout)
        return _config.decode(response.config), response.etag

    def set_config(
        self,
        config: Mapping[Any, Any] | None = None,
        *,
        etag: str = "",
        validate_only: bool = False,
        **changes: Any,
    ) -> dict[str, Any]:
        """Changes the LLM's configuration on the server, for every caller of it. Needs the `admin` role.

        This client's own defaults are the keyword arguments it was made with, and stay as they are.

        Args:
            config: New values by key; `None` clears a key.
            etag: Change it only if it is still the configuration of this etag (`get_config_and_etag`).
            validate_only: Only check the change, and return what it would give.
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
        return _config.decode(self._calls.unary(self._calls.config.SetConfig, request, self._timeout).config)

    # Models of the server.

    def list_cached_models(self) -> list[CachedModel]:
        """The models in the cache on the server's disk, by name. Needs the `admin` role."""
        request = models_pb2.ListCachedModelsRequest(llm=self._llm, page_size=PAGE_SIZE)
        found: list[CachedModel] = []
        while True:
            response = self._calls.unary(self._calls.models.ListCachedModels, request, self._timeout)
            found += [_answers.cached_model(model) for model in response.models]
            request.page_token = response.next_page_token
            if not request.page_token:
                return found

    def clear_model_cache(
        self, model_name: str | None = None, *, all_models: bool = False, dry_run: bool = False
    ) -> ClearedModels:
        """Deletes models from the cache on the server's disk. Needs the `admin` role.

        Args:
            model_name: The model to delete. Unlike on a local cache, leaving it out does not mean all of them.
            all_models: Delete every model.
            dry_run: Only tell what would be deleted.

        Raises:
            InvalidRequestError: If neither a model nor all are asked for, or both.
            ModelInUseError: If an LLM uses the model.
        """
        request = self._clear_request(model_name, all_models, dry_run)
        return _answers.cleared_models(self._calls.unary(self._calls.models.ClearCache, request, self._timeout))

    def pull_model(self, model: str | None = None) -> Iterator[PullProgress]:
        """Downloads a model to the server's disk and reports progress. Needs the `admin` role.

        Leaving the iterator detaches this caller; the last one leaving stops the download.

        Args:
            model: One of the models that the LLM's configuration lists; the default one if absent.
        """
        request = self._pull_request(model)
        with closing(self._calls.stream(self._calls.models.PullModel, request, None)) as reports:
            for report in reports:
                yield _answers.pull_progress(report)

    def load_model(self) -> Iterator[LoadProgress]:
        """Loads the LLM's model into the server's memory and reports progress. Needs the `admin` role.

        Leaving the iterator does not stop the load.
        """
        request = models_pb2.LoadModelRequest(llm=self._llm)
        with closing(self._calls.stream(self._calls.models.LoadModel, request, None)) as reports:
            for report in reports:
                yield _answers.load_progress(report)

    def unload_model(self, *, force: bool = False) -> Iterator[UnloadProgress]:
        """Unloads the LLM's model and reports progress. Needs the `admin` role.

        Args:
            force: Cancel the requests that run; otherwise they make it fail with ModelInUseError.
        """
        request = models_pb2.UnloadModelRequest(llm=self._llm, force=force)
        with closing(self._calls.stream(self._calls.models.UnloadModel, request, None)) as reports:
            for report in reports:
                yield _answers.unload_progress(report)

    # Life.

    def close(self) -> None:
        """Closes the connections; calls that run end with GenerationCancelledError."""
        self._calls.close()
        self._async._by_loop.close_soon()

    async def close_async(self) -> None:
        """As `close`."""
        self._calls.close()
        await self._async.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()


def _texts(events: Generator[Event, None, None]) -> Iterator[str]:
    with closing(events):
        for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text
