"""Anthropic's Messages API as it comes over the wire: the events of a stream, errors, the count of tokens."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from abstractllm import create_llm
from abstractllm.interface import AbstractLLMInterface
from tests.providers.fake_http import Exchange, FakeServer, Handler, answering, serving, streaming

REQUEST_ID = {"request-id": "req_011"}


def event(kind: str, **fields: Any) -> str:
    """One event of the stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"


def start(**usage: Any) -> str:
    """The first event; `usage` are the tokens of the prompt."""
    message = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 1} | usage,
    }
    return event("message_start", message=message) + event("ping")


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any]) -> list[str]:
    """A content block: how it begins, and what it grows by."""
    return [
        event("content_block_start", index=index, content_block=begin),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def text(index: int, *pieces: str) -> list[str]:
    """A block of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": piece} for piece in pieces))


def thinking(index: int, signature: str, *pieces: str) -> list[str]:
    """A block of signed thinking."""
    return block(
        index,
        {"type": "thinking", "thinking": "", "signature": ""},
        *({"type": "thinking_delta", "thinking": piece} for piece in pieces),
        {"type": "signature_delta", "signature": signature},
    )


def tool_use(index: int, call_id: str, name: str, *fragments: str) -> list[str]:
    """A call of a tool, its arguments in fragments."""
    return block(
        index,
        {"type": "tool_use", "id": call_id, "name": name, "input": {}},
        *({"type": "input_json_delta", "partial_json": fragment} for fragment in fragments),
    )


def stop(reason: str | None = "end_turn", sequence: str | None = None, **usage: Any) -> list[str]:
    """The events that end an answer."""
    delta = {"stop_reason": reason, "stop_sequence": sequence}
    return [event("message_delta", delta=delta, usage={"output_tokens": 7} | usage), event("message_stop")]


def answer(*pieces: str) -> list[str]:
    """A whole answer of one block of text."""
    return [start(), *text(0, *pieces), *stop()]


def says(events: Iterable[str], *, then: str = "end") -> Handler:
    """Streams events, and counts every prompt as 42 tokens; see `streaming` for `then`."""
    kept = list(events)

    async def handle(exchange: Exchange) -> None:
        assert exchange.request.method == "POST"
        if exchange.request.path == "/v1/messages/count_tokens":
            await exchange.respond({"input_tokens": 42}, headers=REQUEST_ID)
            return
        assert exchange.request.path == "/v1/messages"
        assert exchange.request.json["stream"] is True
        headers = {"Content-Type": "text/event-stream; charset=utf-8"} | REQUEST_ID
        await streaming(kept, then=then, headers=headers)(exchange)

    return handle


def error_body(kind: str, message: str, **details: Any) -> dict[str, Any]:
    """The body of an error."""
    error = {"type": kind, "message": message} | ({"details": details} if details else {})
    return {"type": "error", "error": error, "request_id": "req_011"}


def fails(status: int, kind: str, message: str = "no", *, retry_after: str | None = None, **details: Any) -> Handler:
    """Answers every request with an error."""
    headers = REQUEST_ID | ({"retry-after": retry_after} if retry_after else {})
    return answering(error_body(kind, message, **details), status, headers)


def raw(*pieces: bytes | str, then: str = "end", **headers: str) -> Handler:
    """Answers every request with these bytes, as an event stream unless the headers say otherwise."""
    return streaming(pieces, then=then, headers=headers or None)


@asynccontextmanager
async def asking(handler: Handler, **config: Any) -> AsyncIterator[tuple[AbstractLLMInterface, FakeServer]]:
    """An LLM of a server that plays `handler`; it tries once unless the configuration says otherwise."""
    async with (
        serving(handler) as server,
        create_llm("anthropic", **{"base_url": server.url, "api_key": "sk-1", "max_retries": 0} | config) as llm,
    ):
        yield llm, server
