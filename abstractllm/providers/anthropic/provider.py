"""The provider `anthropic`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from abstractllm.errors import (
    AbstractLLMError,
    IncompleteStreamError,
    ProviderCredentialsError,
    ProviderProtocolError,
)
from abstractllm.providers.anthropic.answers import EVENTS, AnswerReader
from abstractllm.providers.anthropic.errors import api_error
from abstractllm.providers.anthropic.messages import (
    PROVIDER_OPTIONS,
    SAMPLING_PARAMETERS,
    count_arguments,
    message_body,
    version_headers,
)
from abstractllm.providers.anthropic.models import DEFAULT_MODEL, model_facts
from abstractllm.providers.hosted import HostedConfig, HostedProvider, import_sdk
from abstractllm.providers.hosted.error_reports import tells_error
from abstractllm.providers.hosted.event_streams import ServerSentEvent, drain, parse_json, read_events, whole_json
from abstractllm.providers.hosted.json_values import UNREADABLE
from abstractllm.requests import GenerationRequest
from abstractllm.types import Capabilities, Event, LlmState

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

__all__ = ["AnthropicConfig", "AnthropicProvider"]

BASE_URL = "https://api.anthropic.com"
_NO_KEY = "not-needed"
"""The key of a client whose requests get a header of the configuration in its place; the SDK insists on one."""
_MISSING_KEY = "api_key is missing: set it, or the variable ANTHROPIC_API_KEY"


class AnthropicConfig(HostedConfig):
    """The configuration of an Anthropic LLM.

    `api_key` and `base_url` are taken from `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL` where absent; a `base_url` that
    is not Anthropic's gets neither.
    """

    model: Annotated[str, Field(min_length=1, max_length=256)] = DEFAULT_MODEL
    sampling_parameters: bool = False
    """The model takes `temperature`, `top_p` and `top_k`: only models before Claude Opus 4.7 do, and requests that use
    them are sent with the API's version of 2023-06-01. Without it they are refused."""

    @property
    def official(self) -> bool:
        """True if the LLM is one of Anthropic, not of a server that speaks its format."""
        return self.base_url in (None, BASE_URL)


class AnthropicProvider(HostedProvider[AnthropicConfig, "AsyncAnthropic"]):
    """Claude models, asked through the Messages API with the official SDK.

    Answers are always streamed from the API, so that long ones do not time out. `max_tokens`, which the API requires,
    is the model's own limit where it is not set.

    Args:
        config: The keys of `AnthropicConfig`.
    """

    provider = "anthropic"
    config_type = AnthropicConfig

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Returns `values` with the values of the SDK's variables, unless they name another server's address."""
        completed = super().with_defaults(values)
        if completed.get("base_url") in (None, BASE_URL):
            for name, variable in (("api_key", "ANTHROPIC_API_KEY"), ("base_url", "ANTHROPIC_BASE_URL")):
                if completed.get(name) is None and (value := os.environ.get(variable)):
                    completed[name] = value
        return completed

    @property
    def state(self) -> tuple[LlmState, str]:
        """FAILED without a key."""
        return (LlmState.READY, "") if self.config.has_credentials else (LlmState.FAILED, _MISSING_KEY)

    def reconfigured(self, before: AnthropicConfig, after: AnthropicConfig) -> None:
        """Lets the next request use the new settings."""
        super().reconfigured(before, after)
        self._changed()

    async def capabilities(self, config: AnthropicConfig, model: str) -> Capabilities:
        """Returns the capabilities from a table with a date: see `abstractllm.providers.anthropic.models`."""
        facts = model_facts(model)
        parameters = ["max_tokens", "stop"]
        if facts.efforts:
            parameters.append("reasoning_effort")
        if config.sampling_parameters:
            parameters += SAMPLING_PARAMETERS
        return Capabilities(
            tools=True,
            image_input=True,
            json_schema=True,
            token_counting=True,
            parameters=tuple(parameters),
            provider_options=tuple(PROVIDER_OPTIONS),
            context_window=facts.context_window,
            max_output_tokens=facts.max_output_tokens,
            max_concurrent_requests=config.max_concurrent_requests,
        )

    def make_client(self, config: AnthropicConfig) -> AsyncAnthropic:
        """Imports the SDK and makes a client with neither retries nor redirects of its own."""
        sdk = import_sdk("anthropic")
        if not config.has_credentials:
            raise ProviderCredentialsError(_MISSING_KEY, field="api_key")
        arguments = config.http_arguments(import_sdk("httpx2", "anthropic"))
        client = sdk.AsyncAnthropic(
            api_key=config.key or _NO_KEY,
            base_url=config.base_url or BASE_URL,
            max_retries=0,
            http_client=sdk.DefaultAsyncHttpxClient(**arguments),
        )
        # Those of ANTHROPIC_CUSTOM_HEADERS, which the SDK would send to whatever address.
        client._custom_headers = {}
        return cast("AsyncAnthropic", client)

    async def close_client(self, client: AsyncAnthropic) -> None:
        """Closes the client's connections."""
        await client.close()

    async def answer(
        self, client: AsyncAnthropic, request: GenerationRequest, config: AnthropicConfig
    ) -> AsyncGenerator[Event, None]:
        """Answers a request; see `HostedProvider.answer`."""
        reader = AnswerReader()
        # As `client.messages.create`, but the events stay what JSON makes of them: building the SDK's models takes half
        # the time of an answer, and they promise fields that a server may not send.
        stream = await client.post(
            "/v1/messages",
            cast_to=object,
            body=message_body(request, config.official),
            options={"headers": version_headers(request)},
            stream=True,
            stream_cls=import_sdk("anthropic").AsyncStream[object],
        )
        async with stream:
            response = stream.response
            body, chunks = await whole_json(response.aiter_bytes())
            if body is not None:
                for event in _read_whole(reader, parse_json(body), client, response):
                    yield event
            # Not the SDK's own reader of event streams: see `event_streams`.
            async with aclosing(read_events(chunks)) as events:
                async for sent in events:
                    if (message := _parse(sent, client, response)) is None:
                        continue
                    for event in _read(reader, message):
                        yield event
                    if reader.stopped:
                        await drain(events)
                        break
            if not reader.began:
                _check_is_stream(response)
        finished = reader.finished()
        if finished is None and not reader.began:
            raise ProviderProtocolError("the answer holds no event")
        if finished is None:
            raise IncompleteStreamError("the answer ended without a stop reason")
        yield finished

    async def count(self, request: GenerationRequest, config: AnthropicConfig) -> int:
        """Counts the prompt's tokens, by asking the API."""
        async with self.calling(config, request, is_count=True) as call:
            response = await call.client.messages.count_tokens(**count_arguments(request, config.official))
            # The SDK does not check the answer: it may be anything that JSON can be.
            tokens = getattr(response, "input_tokens", None)
            if not isinstance(tokens, int):
                raise ProviderProtocolError(f"the count of tokens cannot be read: {response!r:.200}")
            return tokens

    def translate(self, error: Exception) -> AbstractLLMError | None:
        """Returns the library's error for one of the SDK's; None for transport failures and unreadable answers."""
        sdk = import_sdk("anthropic")
        if isinstance(error, sdk.APIStatusError):
            return api_error(error)
        if isinstance(error, sdk.APIResponseValidationError):
            return ProviderProtocolError(f"the answer cannot be read: {error}", upstream_status=error.status_code)
        return None


def _check_is_stream(response: Any) -> None:
    kind = response.headers.get("content-type", "")
    if not kind.lower().startswith("text/event-stream"):
        raise ProviderProtocolError(
            f"the answer is not an event stream but {kind[:80] or 'of no declared type'}",
            upstream_status=response.status_code,
        )


def _read(reader: AnswerReader, raw: Any) -> list[Event]:
    try:
        return reader.read(raw)
    except UNREADABLE as error:
        raise ProviderProtocolError(f"an event of the answer cannot be read: {raw!r:.200}") from error


def _read_whole(reader: AnswerReader, body: Any, client: AsyncAnthropic, response: Any) -> list[Event]:
    """Reads an answer that came in one piece, which some servers send though a stream is asked for."""
    if isinstance(body, Mapping) and "content" not in body and tells_error(body):
        raise client._make_status_error(str(body), body=body, response=response)
    try:
        return reader.read_whole(body)
    except UNREADABLE as error:
        kind = response.headers.get("content-type", "")[:80]
        raise ProviderProtocolError(f"the answer ({kind}) cannot be read: {body!r:.200}") from error


def _parse(sent: ServerSentEvent, client: AsyncAnthropic, response: Any) -> Any:
    """Returns what an event holds; None for one that is not read. Some servers leave out the events' names.

    Raises:
        ProviderProtocolError: If one that should be read is no JSON.
        anthropic.APIStatusError: The error that it reports.
    """
    is_read = sent.name in EVENTS
    if not sent.data.strip():
        return None
    try:
        message = parse_json(sent.data)
    except (ValueError, RecursionError) as error:
        if sent.name == "error":
            raise client._make_status_error(sent.data, body=sent.data, response=response) from error
        if not is_read or sent.is_cut:
            return None
        raise ProviderProtocolError(f"an event of the answer cannot be read: {sent.fault(error)}") from error
    if isinstance(message, Mapping):
        is_error = sent.name == "error" or message.get("type") == "error" or message.get("error")
        if is_error or (not is_read and "type" not in message and tells_error(message)):
            raise client._make_status_error(str(message), body=message, response=response)
        return {"type": sent.name, **message}
    if is_read:
        raise ProviderProtocolError(f"an event of the answer cannot be read: {message!r:.200}")
    return None
