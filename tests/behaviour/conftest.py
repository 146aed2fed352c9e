"""One suite over every way to ask an LLM: in process and through a server, synchronous and asynchronous.

`llm` is a `Way`: the same few coroutines, whichever way it goes. It is parametrized over the ways and over the LLMs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

import abstractllm
import abstractllm_client
from abstractllm import LLMRegistry
from abstractllm_client import AsyncRemoteLLM, RemoteLLM
from abstractllm_server.app import Server
from abstractllm_server.config import ServerSettings

LLMS = {"scripted": {"provider": "scripted", "max_retries": 0}, "demo": {"provider": "huggingface", "model": "demo"}}


class Synchronous:
    """The synchronous methods, each called in a thread."""

    def __init__(self, llm, package):
        self.llm, self.package = llm, package

    async def complete(self, prompt, *arguments, **parameters):
        return await asyncio.to_thread(self.llm.complete, prompt, *arguments, **parameters)

    async def generate(self, prompt, *arguments, **parameters):
        return await asyncio.to_thread(self.llm.generate, prompt, *arguments, **parameters)

    async def pieces(self, prompt, *arguments, **parameters):
        return await asyncio.to_thread(lambda: list(self.llm.generate(prompt, *arguments, stream=True, **parameters)))

    async def events(self, prompt, *arguments, **parameters):
        return await asyncio.to_thread(lambda: list(self.llm.stream(prompt, *arguments, **parameters)))

    async def leave_early(self, prompt, **parameters):
        def read_one():
            stream = self.llm.generate(prompt, stream=True, **parameters)
            first = next(stream)
            stream.close()
            return first

        return await asyncio.to_thread(read_one)

    async def ask(self, method, *arguments, **keywords):
        return await asyncio.to_thread(getattr(self.llm, method), *arguments, **keywords)


class Asynchronous:
    """The asynchronous methods; `suffix` is what their names end with."""

    def __init__(self, llm, package, suffix):
        self.llm, self.package, self.suffix = llm, package, suffix

    def method(self, name):
        return getattr(self.llm, name + self.suffix)

    async def complete(self, prompt, *arguments, **parameters):
        return await self.method("complete")(prompt, *arguments, **parameters)

    async def generate(self, prompt, *arguments, **parameters):
        return await self.method("generate")(prompt, *arguments, **parameters)

    async def pieces(self, prompt, *arguments, **parameters):
        stream = await self.method("generate")(prompt, *arguments, stream=True, **parameters)
        return [piece async for piece in stream]

    async def events(self, prompt, *arguments, **parameters):
        return [event async for event in self.method("stream")(prompt, *arguments, **parameters)]

    async def leave_early(self, prompt, **parameters):
        stream = await self.method("generate")(prompt, stream=True, **parameters)
        first = await anext(stream)
        await stream.aclose()
        return first

    async def ask(self, method, *arguments, **keywords):
        return await self.method(method)(*arguments, **keywords)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def registry() -> AsyncIterator[LLMRegistry]:
    found = LLMRegistry.from_config(LLMS)
    yield found
    await found.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def address(registry) -> AsyncIterator[str]:
    server = Server(registry, ServerSettings(listen="127.0.0.1:0", llms=LLMS))
    await server.start()
    yield server.address
    await server.stop(0)


@pytest.fixture(params=list(LLMS))
def llm_name(request) -> str:
    return request.param


@pytest.fixture
def provider(registry, llm_name):
    """The LLM itself, to look at its counters."""
    return registry[llm_name]


@pytest_asyncio.fixture(loop_scope="session", params=["local", "local async", "remote", "remote twins", "remote async"])
async def llm(request, registry, address, llm_name):
    async with AsyncExitStack() as stack:
        match request.param:
            case "local":
                yield Synchronous(registry[llm_name], abstractllm)
            case "local async":
                yield Asynchronous(registry[llm_name], abstractllm, "_async")
            case "remote":
                yield Synchronous(stack.enter_context(RemoteLLM(address, llm_name)), abstractllm_client)
            case "remote twins":
                client = await stack.enter_async_context(RemoteLLM(address, llm_name))
                yield Asynchronous(client, abstractllm_client, "_async")
            case "remote async":
                client = await stack.enter_async_context(AsyncRemoteLLM(address, llm_name))
                yield Asynchronous(client, abstractllm_client, "")
