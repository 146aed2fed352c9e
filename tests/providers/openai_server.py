"""Chat Completions as they come over the wire, for `fake_http`."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

from abstractllm import AbstractLLMInterface, create_llm
from tests.providers.fake_http import Exchange, FakeServer, Handler, answering, serving, streaming

DONE = "data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def event(data: Any) -> str:
    """One event of an event stream."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def chunk(
    content: str | None = None, *, finish: str | None = None, choice: dict[str, Any] | None = None, **delta: Any
) -> str:
    """One chunk of an answer.

    Args:
        content: The piece of text.
        finish: The finish reason.
        choice: Further fields of the choice.
        **delta: Further fields of the delta.
    """
    fields = {"content": content, **delta} if content is not None else delta
    choices = [{"index": 0, "delta": fields, "finish_reason": finish, "logprobs": None, **(choice or {})}]
    return event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    )


def usage_chunk(usage: dict[str, Any] | None = None) -> str:
    """The last chunk, as `include_usage` asks for it."""
    fields = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    return event(fields | {"usage": USAGE if usage is None else usage})


def texts(*pieces: str, finish: str = "stop") -> list[str]:
    """A whole answer of pieces of text, with its usage."""
    return [chunk("", role="assistant"), *map(chunk, pieces), chunk(finish=finish), usage_chunk(), DONE]


def saying(*pieces: str, finish: str = "stop") -> Handler:
    """Answers every request with these pieces of text."""
    return streaming(texts(*pieces, finish=finish), headers=None)


def call(index: int | None = 0, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> str:
    """A piece of a tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    fields: dict[str, Any] = {"index": index, "function": function}
    return chunk(tool_calls=[fields | ({"id": call_id, "type": "function"} if call_id else {})])


def failing(
    status: int,
    message: str = "something is wrong",
    *,
    code: str | int | None = None,
    kind: str = "invalid_request_error",
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Handler:
    """Answers every request with an error in OpenAI's form."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return answering(body, status, {"x-request-id": "req_up"} | (headers or {}))


def raw(*pieces: bytes | str, then: str = "end", **headers: str) -> Handler:
    """Answers every request with these bytes, as an event stream unless the headers say otherwise."""
    return streaming(pieces, then=then, headers=headers or None)


def echoing(pieces: Iterable[str] = ("ok",)) -> Handler:
    """Answers with the authorization header, to show what was sent."""

    async def handle(exchange: Exchange) -> None:
        await streaming(texts(exchange.request.headers.get("authorization", "none"), *pieces))(exchange)

    return handle


@asynccontextmanager
async def asking(handler: Handler, **config: Any) -> AsyncIterator[tuple[AbstractLLMInterface, FakeServer]]:
    """An LLM of a server that plays `handler`; it tries once unless the configuration says otherwise."""
    async with (
        serving(handler) as server,
        create_llm("openai", **{"base_url": f"{server.url}/v1", "model": "m", "max_retries": 0} | config) as llm,
    ):
        yield llm, server


def without_variables() -> Any:
    """Hides the SDK's variables of this machine."""
    hidden = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
    return mock.patch.dict("os.environ", dict.fromkeys(hidden, ""))


@asynccontextmanager
async def asking_openai(handler: Handler, **config: Any) -> AsyncIterator[tuple[AbstractLLMInterface, FakeServer]]:
    """An LLM at OpenAI's own address, whose requests a proxy that plays `handler` answers."""
    async with serving(handler) as server:
        proxies = {"HTTP_PROXY": server.url, "http_proxy": server.url, "NO_PROXY": "", "no_proxy": ""}
        settings = {"base_url": "http://api.openai.com/v1", "api_key": "sk-1", "max_retries": 0} | config
        with mock.patch.dict("os.environ", proxies):
            async with create_llm("openai", **settings) as llm:
                yield llm, server
