"""The ways to ask an LLM, each as the same few coroutines."""

import asyncio
from contextlib import asynccontextmanager

import abstractllm
import abstractllm_client
from abstractllm_client import AsyncRemoteLLM, RemoteLLM

WAYS = ("local", "local async", "remote", "remote async")
TWINS = "remote twins"
"""The asynchronous methods of the client that has both."""
# A fault is to be seen as it is: gRPC's own retries are shown elsewhere.
CHANNEL = (("grpc.enable_retries", 0),)


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

    async def read_on(self, prompt, then, **parameters):
        def read():
            stream = self.llm.generate(prompt, stream=True, **parameters)
            first = next(stream)
            then()
            return [first, *stream]

        return await asyncio.to_thread(read)

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

    async def read_on(self, prompt, then, **parameters):
        stream = await self.method("generate")(prompt, stream=True, **parameters)
        first = await anext(stream)
        then()
        return [first, *[piece async for piece in stream]]

    async def ask(self, method, *arguments, **keywords):
        return await self.method(method)(*arguments, **keywords)


@asynccontextmanager
async def asking(way, llm, address):
    """An LLM, asked in one of the `WAYS`.

    Args:
        way: Which.
        llm: The LLM itself.
        address: That of the server that has it, too.
    """
    match way:
        case "local":
            yield Synchronous(llm, abstractllm)
        case "local async":
            yield Asynchronous(llm, abstractllm, "_async")
        case "remote":
            with RemoteLLM(address, llm.name, channel_options=CHANNEL) as client:
                yield Synchronous(client, abstractllm_client)
        case _ if way == TWINS:
            async with RemoteLLM(address, llm.name, channel_options=CHANNEL) as client:
                yield Asynchronous(client, abstractllm_client, "_async")
        case "remote async":
            async with AsyncRemoteLLM(address, llm.name, channel_options=CHANNEL) as client:
                yield Asynchronous(client, abstractllm_client, "")
