"""The provider `ollama`."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, cast

from abstractllm._core import execution
from abstractllm._core.admission.waiting_room import WaitingRoom
from abstractllm.errors import (
    AbstractLLMError,
    ContextLengthExceededError,
    IncompleteStreamError,
    ModelNotFoundError,
    ProviderProtocolError,
    ProviderUnavailableError,
    UnsupportedParameterError,
)
from abstractllm.providers.hosted import HostedProvider, import_sdk, status_error
from abstractllm.providers.hosted.event_streams import drain
from abstractllm.providers.hosted.json_values import UNREADABLE
from abstractllm.providers.ollama.answers import AnswerReader
from abstractllm.providers.ollama.config import BASE_URL, OllamaConfig, host_url
from abstractllm.providers.ollama.errors import response_error
from abstractllm.providers.ollama.lines import post_for_lines
from abstractllm.providers.ollama.messages import chat_body
from abstractllm.providers.ollama.models import ModelFacts, cached_model, full_name
from abstractllm.providers.ollama.pull import PullReader
from abstractllm.requests import GenerationRequest
from abstractllm.types import CachedModel, Capabilities, Event, Finished, PullProgress

if TYPE_CHECKING:
    from ollama import AsyncClient

__all__ = ["OllamaProvider"]

FACTS_LIFE = 60.0
"""Seconds for which the server's description of a model is kept."""
_UNAUTHORIZED = 401
_NO_SUCH_ROUTE = (404, 405, 501)
"""Statuses of servers that speak Ollama's chat API but cannot describe a model."""

_lock = threading.Lock()
_llms: weakref.WeakSet[OllamaProvider] = weakref.WeakSet()


class OllamaProvider(HostedProvider[OllamaConfig, "AsyncClient"]):
    """Models of an Ollama server, asked through its chat API with the official SDK.

    Prompts that do not fit the model's context are refused, not cut: Ollama from 0.12.6 on refuses them by itself; with
    an older one a cut prompt is noticed after the answer, if the context's size is known, best from the provider
    option `num_ctx`. The abilities of a model are read from the server and kept for a minute.

    Args:
        config: The keys of `OllamaConfig`.
    """

    provider = "ollama"
    config_type = OllamaConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._facts: dict[tuple[object, str], tuple[float, ModelFacts]] = {}
        self._checking = WaitingRoom(self.config.admission_limits)
        with _lock:
            _llms.add(self)

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Returns `values` with the values of Ollama's variables, unless they name another server's address."""
        completed = super().with_defaults(values)
        if completed.get("base_url") is None:
            if host := os.environ.get("OLLAMA_HOST", "").strip() or os.environ.get("OLLAMA_BASE_URL", "").strip():
                completed["base_url"] = host_url(host)
            if completed.get("api_key") is None and (key := os.environ.get("OLLAMA_API_KEY")):
                completed["api_key"] = key
        return completed

    async def check(
        self, request: GenerationRequest, config: OllamaConfig
    ) -> tuple[GenerationRequest, tuple[str, ...]]:
        """Refuses, or drops, what the LLM cannot honour; first asks the server about the model if need be."""
        checks = super().check(request, config)
        if self._known_facts(config, request.parameters.model or "") is not None:
            return await checks
        return await self._checking.during(request, checks)

    @property
    def queued(self) -> int:
        """Requests that wait for their turn, or for what their checks need to know."""
        return super().queued + self._checking.waiting

    @property
    def queued_bytes(self) -> int:
        """Bytes that these hold."""
        return super().queued_bytes + self._checking.waiting_bytes

    async def capabilities(self, config: OllamaConfig, model: str) -> Capabilities:
        """Returns the model's capabilities, as the server describes them.

        Where it does not, nothing is known of the model, and it is left to the request to report what is wrong. A model
        that is not there and a key that is refused are told at once.
        """
        try:
            facts = await self._model_facts(config, model)
        except AbstractLLMError as error:
            is_told_by_request = error.retryable or error.upstream_status not in (None, _UNAUTHORIZED)
            is_told_by_request |= isinstance(error, ProviderProtocolError)
            if error.is_turned_away or _is_of_model(error) or not is_told_by_request:
                raise
            facts = ModelFacts()
        return facts.capabilities(config.provider_options, config.max_concurrent_requests)

    async def get_capabilities_async(self, model: str | None = None) -> Capabilities:
        """Returns the model's capabilities, as the server describes them; every failure is an error here.

        A server that has no description of models is no failure: then nothing is known of the model.
        """
        config = self.config
        facts = await self._model_facts(config, execution.choose_model(self, config, model, "model"))
        return facts.capabilities(config.provider_options, config.max_concurrent_requests)

    async def cached_models(self) -> list[CachedModel]:
        """Lists the models that the server has, sorted by name."""
        async with self.calling(self.config) as call:
            with _reading():
                listed = (await call.client.list()).models
            models = [cached_model(model, self._users(model.model)) for model in listed]
            return sorted(models, key=lambda model: model.name)

    async def pull(self, model: str | None = None) -> AsyncGenerator[PullProgress, None]:
        """Lets the server download a model; see `AbstractLLMInterface.pull`.

        The server itself shares a download among those who ask for the same one, ends it with the last of them, and
        goes on later where it stopped.
        """
        config = self.config
        chosen = execution.choose_model(self, config, model, "model")
        reader = PullReader()
        try:
            async with self.calling(config) as call:
                progress = import_sdk("ollama").ProgressResponse
                body = {"model": chosen, "stream": True}
                async with aclosing(post_for_lines(call.client, "/api/pull", body)) as lines:
                    async for line in lines:
                        if (report := reader.read(progress(**line))) is not None:
                            yield report
                            if report.done:
                                self._facts.clear()
                                return
                raise ProviderUnavailableError("the download ended without its last line; what is there is kept")
        except AbstractLLMError as error:
            error.fill(provider=self.provider, llm=self.name, model=chosen)
            raise

    def _users(self, model: str | None) -> tuple[str, ...]:
        """Returns the LLMs of this process that use a model of this server."""
        with _lock:
            llms = list(_llms)
        return tuple(
            sorted(
                llm.name
                for llm in llms
                if llm.config.base_url == self.config.base_url
                and model in {full_name(name) for name in (llm.config.model, *llm.config.models)}
            )
        )

    async def answer(
        self, client: AsyncClient, request: GenerationRequest, config: OllamaConfig
    ) -> AsyncGenerator[Event, None]:
        """Answers a request; see `HostedProvider.answer`."""
        reader = AnswerReader()
        # The SDK's own `chat` drops what its types do not know: nested properties of tools' schemas, ids of tool calls,
        # `truncate`.
        async with aclosing(post_for_lines(client, "/api/chat", chat_body(request, config))) as lines:
            async for line in lines:
                for event in _read(reader, line):
                    yield event
                if reader.last is not None:
                    await drain(lines)
                    break
        if reader.last is None and not reader.began:
            raise ProviderProtocolError("the answer holds no line")
        if reader.last is None:
            raise IncompleteStreamError("the answer ended without its last line")
        finished = reader.finished(reader.last)
        self._check_whole(request, config, reader, finished)
        yield finished

    def _check_whole(
        self, request: GenerationRequest, config: OllamaConfig, reader: AnswerReader, finished: Finished
    ) -> None:
        """Checks that the server has ignored nothing, as old ones do.

        Raises:
            ContextLengthExceededError: If it has cut the prompt.
            UnsupportedParameterError: If it has left out the log-probabilities.
        """
        _, facts = self._facts.get((config.connection, request.parameters.model or ""), (0.0, ModelFacts()))
        window, tokens = facts.window(request.provider_options.get("num_ctx")), finished.usage.input_tokens
        if window is not None and tokens is not None and tokens >= window:
            raise ContextLengthExceededError(
                f"the prompt fills the context of {window} tokens: the server has cut it, or left no room to answer",
                field="chat",
                limit=window,
                requested=f"at least {tokens}",
                output_tokens=finished.usage.output_tokens,
            )
        if request.parameters.top_logprobs is not None and finished.usage.output_tokens and not reader.logprobs:
            raise UnsupportedParameterError(
                "parameters.top_logprobs: this version of the Ollama server gives no log-probabilities",
                field="parameters.top_logprobs",
            )

    async def _model_facts(self, config: OllamaConfig, model: str) -> ModelFacts:
        if (known := self._known_facts(config, model)) is not None:
            return known
        try:
            async with self.calling(config) as call:
                with _reading():
                    facts = ModelFacts.of(await call.client.show(model))
        except AbstractLLMError as error:
            if error.upstream_status not in _NO_SUCH_ROUTE or _is_of_model(error):
                raise
            facts = ModelFacts()
        self._facts[config.connection, model] = (time.monotonic(), facts)
        return facts

    def _known_facts(self, config: OllamaConfig, model: str) -> ModelFacts | None:
        """Returns what the server has told of a model of late; None if it has not."""
        told_at, facts = self._facts.get((config.connection, model), (-math.inf, None))
        return facts if time.monotonic() - told_at < FACTS_LIFE else None

    def reconfigured(self, before: OllamaConfig, after: OllamaConfig) -> None:
        """Lets the next request use the new settings."""
        super().reconfigured(before, after)
        self._checking.configure(after.admission_limits)
        self._facts.clear()

    def make_client(self, config: OllamaConfig) -> AsyncClient:
        """Imports the SDK and makes a client, with the timeouts that the SDK itself does not set."""
        sdk, httpx = import_sdk("ollama"), import_sdk("httpx", "ollama")
        arguments = config.http_arguments(httpx)
        if config.key:
            arguments["headers"] |= {"Authorization": f"Bearer {config.key}"}
        client = sdk.AsyncClient(host=config.base_url or BASE_URL, **arguments)
        if not config.key:
            # The SDK sends the variable's key to whatever address.
            client._client.headers.pop("authorization", None)
        return cast("AsyncClient", client)

    async def close_client(self, client: AsyncClient) -> None:
        """Closes the client's connections."""
        await client.close()  # type: ignore[no-untyped-call]

    def translate(self, error: Exception) -> AbstractLLMError | None:
        """Returns the library's error for one of the SDK's; None for transport failures and unreadable answers."""
        return response_error(error) if isinstance(error, import_sdk("ollama").ResponseError) else None


def _is_of_model(error: AbstractLLMError) -> bool:
    """Tells a model that is not there from a route that is not there."""
    return isinstance(error, ModelNotFoundError) and "model" in error.message.lower()


@contextmanager
def _reading() -> Iterator[None]:
    """Turns the errors that the SDK raises for JSON that is not an object into the library's."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        response = getattr(error.__context__, "response", None)
        if response is not None:
            raise status_error(response.status_code, response.text, response.headers) from error
        raise ProviderProtocolError(f"the answer is not a JSON object: {error}") from error


def _read(reader: AnswerReader, line: Mapping[str, Any]) -> list[Event]:
    try:
        return reader.read(line)
    except UNREADABLE as error:
        raise ProviderProtocolError(f"a line of the answer cannot be read: {line!r:.200}") from error
