"""A hosted provider's API, played well or badly, on the loopback interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.providers import fake_http
from tests.providers.fake_http import Exchange, FakeServer

Handler = Callable[[Exchange], Awaitable[None]]


def hosted(server: FakeServer, provider: str = "openai", **keys: Any) -> dict[str, Any]:
    """Returns the configuration of a hosted LLM whose API is this server."""
    path = "/v1" if provider == "openai" else ""
    line = {"provider": provider, "model": "m", "base_url": server.url + path, "max_retries": 0}
    if provider != "ollama":
        line["api_key"] = "sk-reliability-0123456789"
    return line | keys


def chunk(text: str | None = None, finish: str | None = None) -> str:
    """Returns one event of a stream in the dialect of OpenAI."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': '1', 'object': 'chat.completion.chunk', 'model': 'm', 'choices': [choice]})}\n\n"


def speaking(words: int, interval: float) -> Handler:
    """Streams so many words, one every `interval` seconds."""

    async def handle(exchange: Exchange) -> None:
        await exchange.start()
        for number in range(words):
            await exchange.send(chunk(f" w{number}"))
            await asyncio.sleep(interval)
        await exchange.send(chunk(finish="stop"))
        await exchange.send("data: [DONE]\n\n")
        await exchange.end()

    return handle


async def silent(exchange: Exchange) -> None:
    """Never answers."""
    await asyncio.sleep(3600)


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[FakeServer]:
    """Serves `handler`; what was received is not kept, so that big requests cost the measuring process nothing."""

    async def forget(exchange: Exchange) -> None:
        server.requests.clear()
        left = asyncio.ensure_future(exchange._left)
        task = asyncio.ensure_future(handler(exchange))
        # A caller who leaves ends the answer.
        await asyncio.wait([task, left], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        elif not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async with fake_http.serving(forget) as server:
        yield server
