"""One suite over every way to ask an LLM: in process and through a server, synchronous and asynchronous.

`llm` is a way of asking: the same few coroutines, whichever way it goes. It is parametrized over the ways and over the
LLMs. The hosted providers' servers are ours; the real SDKs talk to them over real sockets. All of it is shared by the
tests of this folder and ends with them: others count the processes that there are.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from abstractllm import LLMRegistry
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from tests.behaviour.faults import FAULTS, OWN_FAULTS
from tests.behaviour.features import FEATURES
from tests.behaviour.subjects import Fallback, Hosted, Local, Scripted
from tests.behaviour.table import Table
from tests.behaviour.upstreams import Anthropic, Ollama, OpenAI
from tests.behaviour.ways import WAYS, asking

PROVIDERS = ("openai", "anthropic", "ollama", "huggingface", "fallback", "scripted")
TABLE = Table(PROVIDERS, (*FEATURES, *FAULTS, *OWN_FAULTS))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def upstreams():
    """The hosted providers' servers, by provider."""
    async with AsyncExitStack() as stack:
        servers = {one.provider: one for one in (OpenAI(), Anthropic(), Ollama())}
        for one in servers.values():
            one.play("text")
            one.server = await stack.enter_async_context(one.running())
        yield servers


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def registry(upstreams) -> AsyncIterator[LLMRegistry]:
    lines = {name: one.config() | {"max_retries": 0} for name, one in upstreams.items()}
    lines["huggingface"] = {"provider": "huggingface", "model": "demo"}
    lines["fallback"] = {"provider": "fallback", "llms": ["openai", "anthropic"], "max_retries": 0}
    lines["scripted"] = {"provider": "scripted", "max_retries": 0}
    llms = LLMRegistry.from_config(lines)
    for name in upstreams:
        # The first request imports the SDK, and the first on each event loop makes a client: no deadline is for that.
        await llms[name].generate_async("Hi")
        await asyncio.to_thread(llms[name].generate, "Hi")
    yield llms
    await llms.close()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def address(registry) -> AsyncIterator[str]:
    server = Server(registry, ServerSettings(listen="127.0.0.1:0", llms={llm.name: {} for llm in registry}, preload=()))
    await server.start()
    yield server.address
    await server.stop(0)


@pytest.fixture(scope="package")
def subjects(registry, upstreams):
    hosted = {name: Hosted(registry[name], upstreams[name]) for name in upstreams}
    return {
        **hosted,
        "huggingface": Local(registry["huggingface"]),
        "fallback": Fallback(registry["fallback"], hosted["openai"], hosted["anthropic"]),
        "scripted": Scripted(registry["scripted"]),
    }


@pytest.fixture(params=PROVIDERS)
def subject(request, subjects):
    """The LLM under test."""
    return subjects[request.param]


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest_asyncio.fixture(loop_scope="session")
async def llm(way, subject, address):
    async with asking(way, subject.llm, address) as client:
        yield client


@pytest.fixture
def table():
    return TABLE


def pytest_terminal_summary(terminalreporter):
    """Prints the table, if it was filled."""
    if TABLE.is_begun:
        terminalreporter.section("provider x behaviour")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
