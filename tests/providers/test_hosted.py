"""Connections, event loops, limits and proxies of hosted providers, shown with the openai provider."""

import asyncio
import importlib
import subprocess
import sys
import threading

import pytest

import abstractllm_client
from abstractllm import (
    Capabilities,
    ConfigurationError,
    GenerationTimeoutError,
    InvalidRequestError,
    ProviderUnavailableError,
    create_llm,
)
from abstractllm._core.admission.gate import AdmissionGate, Passage
from abstractllm._core.admission.limits import AdmissionLimits
from abstractllm.providers.hosted import HostedProvider
from abstractllm.providers.hosted.errors import scrub, transport_error
from abstractllm_client import AsyncRemoteLLM
from tests.providers.fake_http import HANG, Exchange, answering, hanging, serving
from tests.providers.openai_server import asking, saying
from tests.server.support import request
from tests.server.support import serving as grpc_serving


async def test_many_requests_open_no_more_connections_than_the_limit_and_leave_none():
    async def handle(exchange: Exchange) -> None:
        await asyncio.sleep(0.01)
        await saying("ok")(exchange)

    async with asking(handle, max_concurrent_requests=8) as (llm, server):
        answers = await asyncio.gather(*(llm.complete_async("Hi") for _ in range(200)))
        assert {answer.text for answer in answers} == {"ok"}
        assert max(answer.timing.queued for answer in answers) > 0
        assert (server.most_running, server.most_open, server.connections) == (8, 8, 8)
        assert (llm.running, llm.queued) == (0, 0)
        await llm.close_async()
        await server.settled()


def test_a_hosted_provider_needs_no_configuration_class_of_its_own():
    class BareProvider(HostedProvider):
        provider = "bare"

        def make_client(self, config):
            raise NotImplementedError

        async def close_client(self, client):
            raise NotImplementedError

        def answer(self, client, request, config):
            raise NotImplementedError

        def translate(self, error):
            raise NotImplementedError

        async def capabilities(self, config, model):
            return Capabilities()

    with BareProvider({"max_concurrent_requests": 3}) as llm:
        assert llm.config.max_concurrent_requests == 3
        assert llm.config.timeout == 600


async def test_one_connection_is_used_again_and_again():
    async with asking(saying("ok")) as (llm, server):
        for _ in range(10):
            await llm.complete_async("Hi")
        assert server.connections == 1
        assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_request_that_waits_for_a_slot_still_meets_its_deadline_and_frees_its_place():
    async with asking(hanging, max_concurrent_requests=1) as (llm, server):
        running = asyncio.create_task(llm.complete_async("Hi"))
        while not server.running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        waiting = asyncio.create_task(llm.complete_async("Hi", timeout=0.3))
        while not llm.queued:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        with pytest.raises(GenerationTimeoutError):
            await waiting
        assert (llm.queued, len(server.requests)) == (0, 1)
        running.cancel()
        await asyncio.wait([running])
        await server.settled()


async def test_a_higher_limit_lets_those_that_wait_run():
    async with asking(hanging, max_concurrent_requests=1) as (llm, server):
        tasks = [asyncio.create_task(llm.complete_async("Hi")) for _ in range(3)]
        while llm.queued < 2 or not server.running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        llm.set_config(max_concurrent_requests=3)
        async with asyncio.timeout(HANG):
            while server.running < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await server.settled(connections=0)


def test_the_limit_holds_over_several_event_loops_and_lose_none_to_cancelled_waiters():
    gate, running, most = AdmissionGate(3, AdmissionLimits(1000, 1 << 30)), 0, 0
    lock = threading.Lock()

    async def work() -> None:
        nonlocal running, most
        async with gate.admit(Passage()):
            with lock:
                running += 1
                most = max(most, running)
            try:
                await asyncio.sleep(0.001)
            finally:
                with lock:
                    running -= 1

    async def many() -> None:
        tasks = [asyncio.create_task(work()) for _ in range(60)]
        await asyncio.sleep(0.002)
        for task in tasks[::5]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=asyncio.run, args=(many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()
    assert (most, gate.waiting, gate.running) == (3, 0, 0)


class ServerThread:
    """A server on an event loop of its own thread, for tests whose event loops come and go."""

    def __init__(self, handler):
        self._handler = handler
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self):
        self._stop = asyncio.Event()
        async with serving(self._handler) as self.server:
            self._ready.set()
            await self._stop.wait()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(HANG)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(HANG)
        self._loop.close()

    def settled(self):
        asyncio.run_coroutine_threadsafe(self.server.settled(), self._loop).result(HANG)


def test_an_llm_outlives_its_event_loops_and_each_loop_s_end_closes_its_connections():
    with ServerThread(saying("ok")) as thread:
        llm = create_llm("openai", base_url=thread.server.url, model="m")
        for _ in range(3):
            assert asyncio.run(llm.generate_async("Hi")) == "ok"
            thread.settled()
        assert thread.server.connections == 3
        assert llm.generate("Hi") == "ok"
        assert "".join(llm.generate("Hi", stream=True)) == "ok"
        assert thread.server.connections == 4
        llm.close()
        thread.settled()


def test_closing_inside_a_running_loop_neither_waits_for_that_loop_nor_leaves_a_connection():
    with ServerThread(saying("ok")) as thread:
        llm = create_llm("openai", base_url=thread.server.url, model="m")

        async def main() -> None:
            await llm.generate_async("Hi")
            llm.generate("Hi")
            llm.close()  # the synchronous one: it blocks this event loop, and may not wait for it

        asyncio.run(asyncio.wait_for(main(), HANG))
        thread.settled()
        assert thread.server.connections == 2


async def test_proxies_of_the_environment_are_honoured(monkeypatch):
    async with serving(saying("through the proxy")) as proxy:
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        async with create_llm("openai", base_url="http://llm.example/v1", model="m") as llm:
            assert await llm.generate_async("Hi") == "through the proxy"
        assert proxy.requests[0].path == "http://llm.example/v1/chat/completions"


def test_neither_the_provider_nor_its_making_imports_the_sdk():
    code = (
        "import sys; from abstractllm import create_llm; create_llm('openai', api_key='sk-1').get_capabilities();"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'openai', 'httpx', 'httpx2', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_an_answer_comes_through_the_grpc_server():
    async with asking(saying("Hel", "lo")) as (llm, server), grpc_serving({"gpt": llm}) as served:
        answer = await served.generation.Generate(request("Hi"), timeout=HANG)
        assert (answer.text, answer.provider, answer.usage.cached_input_tokens) == ("Hello", "openai", 4)
        assert [attempt.llm for attempt in answer.attempts] == ["gpt"]
        texts = [
            event.text_delta.text
            async for event in served.generation.StreamGenerate(request("Hi"), timeout=HANG)
            if event.HasField("text_delta")
        ]
        assert texts == ["Hel", "lo"]
        assert server.connections == 1


async def test_a_caller_that_leaves_the_grpc_server_leaves_no_connection_upstream():
    async with asking(hanging) as (llm, upstream), grpc_serving({"gpt": llm}) as served:
        call = served.generation.Generate(request("Hi"), timeout=HANG)
        async with asyncio.timeout(HANG):
            while not upstream.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        call.cancel()
        await upstream.settled()


@pytest.mark.parametrize("body", ["<html>Sign in</html>", '{"choices": []}', "data: {bad json\n\n"])
async def test_a_malformed_answer_is_asked_for_once_by_a_client_of_the_server_too(body: str):
    malformed = answering(body, headers={"Content-Type": "text/event-stream"})
    async with asking(malformed, max_retries=2) as (llm, upstream), grpc_serving({"gpt": llm}) as served:
        async with AsyncRemoteLLM(served.server.address) as client:
            with pytest.raises(abstractllm_client.ProviderProtocolError) as caught:
                await client.generate("Hi")
        assert len(upstream.requests) == 1
    assert caught.value.retryable


@pytest.mark.parametrize(
    "end", ['data: {"error": {"message": "gone", "code": 502}}\n\n', ""], ids=["an error", "the end of the connection"]
)
async def test_an_answer_that_breaks_off_is_asked_for_once_by_a_client_of_the_server_too(end: str):
    begun = 'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
    broken = answering(begun + end, headers={"Content-Type": "text/event-stream"})
    async with asking(broken, max_retries=2) as (llm, upstream), grpc_serving({"gpt": llm}) as served:
        async with AsyncRemoteLLM(served.server.address) as client:
            with pytest.raises(abstractllm_client.AbstractLLMError):
                await client.generate("Hi")
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("key", "is_removed"),
    [
        *[(key, False) for key in ("x", "k", "none", "EMPTY", "model", "ollama", "test", "not-needed", "lm-studio")],
        *[(key, False) for key in ("dummy_key", "sk-no-key-required", "Placeholder", "sk-1234")],
        *[(key, True) for key in ("token-abc123", "sk-canary-0123456789", "hf_aBcDeFgHiJkL", "a" * 20)],
    ],
)
def test_a_key_that_is_an_ordinary_word_is_left_in_errors(key: str, is_removed: bool):
    error = InvalidRequestError(f"bad: {key}!", field=f"parameters.{key}")
    scrub(error, [key])
    assert (key not in error.message, key not in (error.field or "")) == (is_removed, is_removed)
    assert (key not in str(error)) is is_removed


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize("key", ["sk-a b", "sk-a\n", "\tsk-a", "sk-ä", "ключ", "sk-\u200b", "sk-“a”", "\ud800"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start_and_not_repeated(provider: str, key: str):
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        create_llm(provider, model="m", api_key=key, base_url="http://127.0.0.1:9")
    assert caught.value.field == "api_key"
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OSError, "no such file: /etc/secret"),
        (ImportError, "Using SOCKS proxy, but the 'socksio' package is not installed"),
        (ValueError, "Unknown scheme for proxy URL 'x://u:secret@h'"),
    ],
)
async def test_a_client_that_cannot_be_made_is_the_configuration_s_fault_and_made_once(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], message: str
):
    attempts = []

    def fail(config):
        attempts.append(config)
        raise kind(message)

    async with create_llm("openai", model="m", base_url="http://127.0.0.1:9/v1", max_retries=2) as llm:
        monkeypatch.setattr(llm, "make_client", fail)
        with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
            await llm.complete_async("Hi")
    assert len(attempts) == 1
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("name", "message", "variable"),
    [
        ("ConnectError", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed", "SSL_CERT_FILE"),
        ("ProxyError", "407 Proxy Authentication Required", "HTTPS_PROXY"),
    ],
)
def test_a_certificate_or_a_proxy_that_refuses_is_not_tried_again(library: str, name: str, message: str, variable: str):
    error = transport_error(getattr(importlib.import_module(library), name)(message))
    assert isinstance(error, ConfigurationError)
    assert variable in error.message


@pytest.mark.parametrize("message", ["503 Service Unavailable", "cannot connect to the proxy"])
def test_a_proxy_that_fails_may_recover(message: str):
    assert isinstance(transport_error(importlib.import_module("httpx2").ProxyError(message)), ProviderUnavailableError)
