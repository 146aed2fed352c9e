"""A thousand calls through the server open no more upstream connections than the limit, and leave nothing behind."""

import asyncio

import psutil
import pytest

from abstractllm import LLMRegistry
from abstractllm_client import AsyncRemoteLLM
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from tests.behaviour.upstreams import Anthropic, Ollama, OpenAI

CALLS, CLIENTS, LIMIT = 1000, 32, 6
HANG = 110.0
MEMORY = 32 * 2**20
"""Bytes that the process may grow by over the second half; far less than a leaked answer or connection a call."""


@pytest.mark.parametrize("kind", [OpenAI, Anthropic, Ollama])
async def test_a_thousand_calls_share_few_connections_and_leave_none(kind):
    upstream = kind()
    upstream.play("text")
    async with upstream.running() as upstream.server, asyncio.timeout(HANG):
        lines = {"llm": upstream.config() | {"max_concurrent_requests": LIMIT}}
        registry = LLMRegistry.from_config(lines)
        async with (
            Server(registry, ServerSettings(listen="127.0.0.1:0", llms=lines)) as server,
            AsyncRemoteLLM(server.address, "llm") as client,
        ):
            memory = []

            async def ask(calls):
                for call in range(calls):
                    if call % 2:
                        assert await client.generate("Hi") == "The capital of France is Paris."
                    else:
                        pieces = [piece async for piece in await client.generate("Hi", stream=True)]
                        assert "".join(pieces) == "The capital of France is Paris."

            for _ in range(2):
                await asyncio.gather(*(ask(CALLS // 2 // CLIENTS + 1) for _ in range(CLIENTS)))
                memory.append(psutil.Process().memory_info().rss)
        answered = [request for request in upstream.server.requests if request.path.endswith(("ions", "ages", "chat"))]
        assert len(answered) >= CALLS
        assert upstream.server.most_open <= LIMIT
        assert upstream.server.connections <= LIMIT
        assert registry["llm"].running == 0
        await upstream.server.settled(0)
        assert memory[1] - memory[0] < MEMORY
