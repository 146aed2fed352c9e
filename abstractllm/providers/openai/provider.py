"""The provider `openai`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from abstractllm.errors import AbstractLLMError, ProviderCredentialsError
from abstractllm.providers.hosted import HostedProvider, import_sdk, transport_error
from abstractllm.providers.hosted.event_streams import drain, parse_json_values, read_events, whole_json
from abstractllm.providers.openai.answers import AnswerReader
from abstractllm.providers.openai.config import OPENAI_URL, OpenAIConfig, is_openai
from abstractllm.providers.openai.counting import count_tokens
from abstractllm.providers.openai.errors import translate
from abstractllm.providers.openai.messages import PROVIDER_OPTIONS, as_body
from abstractllm.providers.openai.streaming import refused_streaming
from abstractllm.providers.openai.wire_state import server_mark
from abstractllm.requests import GenerationRequest
from abstractllm.types import Capabilities, Event, LlmState

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

__all__ = ["OpenAIProvider"]

_NO_KEY = "not-needed"
"""The key that is sent to a compatible server that needs none; the SDK insists on one."""
_MISSING_KEY = "api_key is missing: set it, or the variable OPENAI_API_KEY"


class OpenAIProvider(HostedProvider[OpenAIConfig, "AsyncOpenAI"]):
    """An LLM of OpenAI, or of a server that speaks its Chat Completions format.

    The key, the address, the organization and the project are taken from the SDK's own variables (`OPENAI_API_KEY`,
    `OPENAI_BASE_URL`, `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`) where the configuration does not set them; a `base_url` in
    the configuration that is not OpenAI's gets none of them, so that no key goes where it does not belong.

    Args:
        config: The keys of `OpenAIConfig`.
    """

    provider = "openai"
    config_type = OpenAIConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._refused: dict[tuple[object, str | None, bool], set[str]] = {}
        """By connection, model and whether there are tools: the fields of streaming that the server has refused."""

    def with_defaults(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Returns `values` with the values of the SDK's variables, unless they name another server's address."""
        completed = super().with_defaults(values)
        base_url = completed.get("base_url")
        uses_variables = is_openai(base_url if isinstance(base_url, str) else None)
        for key, variable in (
            ("base_url", "OPENAI_BASE_URL"),
            ("api_key", "OPENAI_API_KEY"),
            ("organization", "OPENAI_ORG_ID"),
            ("project", "OPENAI_PROJECT_ID"),
        ):
            if uses_variables and completed.get(key) is None and (value := os.environ.get(variable)):
                completed[key] = value
        return completed

    @property
    def state(self) -> tuple[LlmState, str]:
        """FAILED where OpenAI would be asked without a key."""
        return (LlmState.FAILED, _MISSING_KEY) if _lacks_key(self.config) else (LlmState.READY, "")

    def reconfigured(self, before: OpenAIConfig, after: OpenAIConfig) -> None:
        """Lets the next request use the new settings."""
        super().reconfigured(before, after)
        self._refused.clear()
        self._changed()

    async def capabilities(self, config: OpenAIConfig, model: str) -> Capabilities:
        """Returns the capabilities from the table of models, or from the configuration."""
        family, parameters = config.family(model), config.parameters_of(model)
        return Capabilities(
            tools=True,
            image_input=family.image_input,
            json_object=True,
            json_schema=family.json_schema,
            logprobs="top_logprobs" in parameters,
            seed="seed" in parameters,
            token_counting=config.official,
            parameters=parameters,
            provider_options=PROVIDER_OPTIONS,
            context_window=family.context_window,
            max_output_tokens=family.max_output_tokens,
            max_concurrent_requests=config.max_concurrent_requests,
        )

    async def answer(
        self, client: AsyncOpenAI, request: GenerationRequest, config: OpenAIConfig
    ) -> AsyncGenerator[Event, None]:
        """Reads the answer, which is streamed unless the server or `extra_body` will have it whole.

        After the finish reason only the usage may come, so a connection that is lost then does no harm.
        """
        stream = await self._post(client, request, config)
        async with stream:
            response = stream.response
            reader = AnswerReader(
                _source(response),
                server=server_mark(config.base_url or OPENAI_URL),
                tools=[tool.name for tool in request.tools],
                stop=request.parameters.stop or (),
            )
            try:
                # Not the SDK's own reader of event streams: see `event_streams`.
                async with aclosing(_read(reader, response.aiter_bytes())) as events:
                    async for event in events:
                        yield event
            except AbstractLLMError:
                raise
            except Exception as error:
                if not reader.whole or transport_error(error) is None:
                    raise
            for event in reader.rest():
                yield event
            yield reader.finished()

    async def _post(self, client: AsyncOpenAI, request: GenerationRequest, config: OpenAIConfig) -> AsyncStream[object]:
        """Sends a request; once more, and from then on, without what the server says that it cannot do in streaming."""
        refused = self._refused.setdefault((config.connection, request.parameters.model, bool(request.tools)), set())
        while True:
            body = as_body(request, config)
            if "stream_options" in refused:
                body.pop("stream_options", None)
            if "stream" in refused:
                body["stream"] = False
            try:
                # As `client.chat.completions.create`, but the chunks stay what JSON makes of them: building the SDK's
                # models takes half the time of an answer, and they promise fields that compatible servers do not send.
                return await client.post(
                    "/chat/completions",
                    cast_to=object,
                    body=body,
                    options={"security": {"bearer_auth": True}},
                    stream=True,
                    stream_cls=import_sdk("openai").AsyncStream[object],
                )
            except Exception as error:
                field = refused_streaming(error)
                if field is None or not body.get(field):
                    raise
                # A server that cannot stream has no use for the options either.
                refused |= {field, "stream_options"}

    async def count(self, request: GenerationRequest, config: OpenAIConfig) -> int:
        """Counts the prompt's tokens by asking OpenAI; compatible servers do not offer that."""
        if not config.official:
            return await super().count(request, config)
        async with self.calling(config, request, is_count=True) as call:
            return await count_tokens(call.client, request, config)

    def translate(self, error: Exception) -> AbstractLLMError | None:
        """Returns the library's error for one of the SDK's."""
        return translate(error)

    def make_client(self, config: OpenAIConfig) -> AsyncOpenAI:
        """Imports the SDK and makes its client."""
        if _lacks_key(config):
            raise ProviderCredentialsError(_MISSING_KEY, field="api_key")
        openai, httpx2 = import_sdk("openai"), import_sdk("httpx2", "openai")
        http = config.http_arguments(httpx2)
        client: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=config.key or _NO_KEY,
            # Empty, not absent: an absent one would be read from the environment.
            admin_api_key="",
            base_url=config.base_url or OPENAI_URL,
            timeout=http["timeout"],
            max_retries=0,
            http_client=httpx2.AsyncClient(**http),
        )
        client.organization, client.project = config.organization, config.project
        # Those of OPENAI_CUSTOM_HEADERS, which the SDK would send to whatever address.
        client._custom_headers, client._ambient_authorizations = {}, frozenset()
        return client

    async def close_client(self, client: AsyncOpenAI) -> None:
        """Closes the client's connections."""
        await client.close()


def _lacks_key(config: OpenAIConfig) -> bool:
    return config.official and not config.has_credentials


async def _read(reader: AnswerReader, chunks: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Reads an answer that is streamed, or came in one piece."""
    body, chunks = await whole_json(chunks)
    if body is not None:
        for value in parse_json_values(body):
            for event in reader.read_whole(value):
                yield event
        return
    async with aclosing(read_events(chunks)) as events:
        async for sent in events:
            read = reader.read_event(sent)
            for event in read or ():
                yield event
            if read is None or reader.is_done:
                await drain(events)
                return


def _source(response: Any) -> str:
    kind = response.headers.get("content-type", "no content type")[:80]
    source = f"HTTP {response.status_code}, {kind}"
    request_id = response.headers.get("x-request-id")
    return f"{source}, request {request_id[:100]}" if request_id else source
