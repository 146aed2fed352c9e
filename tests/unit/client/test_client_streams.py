"""Leaving an answer, however it is left, ends its generation at the server."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest

import abstractllm_client as client
from abstractllm_client import AsyncRemoteLLM, Finished, GenerationCancelledError, RemoteLLM, Started, TextDelta
from tests.waiting import until

GUARD = 60.0


async def released(server: Any) -> bool:
    return await asyncio.to_thread(server.released.wait, GUARD)


def test_a_stream_is_started_deltas_and_finished(server: Any) -> None:
    server.say("Paris it is")
    with RemoteLLM(server.address) as llm:
        events = list(llm.stream("Hi"))
        assert events[0] == Started("1", "local", "test", "m")
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["Paris", " it", " is"]
        assert isinstance(events[-1], Finished)
        assert events[-1].message is not None
        assert events[-1].message.text == "Paris it is"
        assert list(llm.generate("Hi", stream=True)) == ["Paris", " it", " is"]
        assert llm.generate("Hi") == llm.complete("Hi").text == "Paris it is"


async def test_the_asynchronous_clients_stream_the_same(server: Any) -> None:
    server.say("Paris it is")
    async with RemoteLLM(server.address) as sync, AsyncRemoteLLM(server.address) as llm:
        expected = list(sync.stream("Hi"))
        assert [event async for event in sync.stream_async("Hi")] == expected
        assert [event async for event in llm.stream("Hi")] == expected
        assert [piece async for piece in await llm.generate("Hi", stream=True)] == ["Paris", " it", " is"]
        assert await llm.generate("Hi") == (await llm.complete("Hi")).text == "Paris it is"


def test_breaking_out_of_a_stream_ends_the_generation(server: Any) -> None:
    server.go_on_for_ever()
    with RemoteLLM(server.address) as llm:
        for event in llm.stream("Hi"):
            if isinstance(event, TextDelta):
                break
        del event
        gc.collect()
        assert server.released.wait(GUARD)


def test_an_exception_in_the_loop_ends_the_generation(server: Any) -> None:
    server.go_on_for_ever()
    with RemoteLLM(server.address) as llm:
        with pytest.raises(ZeroDivisionError):
            _ = [1 / 0 for _ in llm.generate("Hi", stream=True)]
        assert server.released.wait(GUARD)


def test_closing_or_dropping_an_iterator_ends_the_generation(server: Any) -> None:
    server.go_on_for_ever()
    with RemoteLLM(server.address) as llm:
        for kind in ("close", "drop"):
            pieces = llm.generate("Hi", stream=True)
            assert next(pieces) == "on "
            assert server.running == 1
            if kind == "close":
                pieces.close()
            else:
                del pieces
                gc.collect()
            assert server.released.wait(GUARD)


def test_an_iterator_that_is_never_used_asks_nothing(server: Any) -> None:
    server.say()
    with RemoteLLM(server.address) as llm:
        llm.stream("Hi")
        llm.generate("Hi", stream=True)
        assert llm.generate("Hi")
    assert len(server.requests) == 1


async def test_leaving_an_asynchronous_stream_ends_the_generation(server: Any) -> None:
    server.go_on_for_ever()
    async with AsyncRemoteLLM(server.address) as llm:
        async with aclosing(llm.stream("Hi")) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        assert await released(server)
        pieces = await llm.generate("Hi", stream=True)
        assert await anext(pieces) == "on "
        del pieces
        gc.collect()
        assert await released(server)


async def test_cancelling_a_task_ends_the_generation(server: Any) -> None:
    server.go_on_for_ever()

    async def read(llm: AsyncRemoteLLM) -> None:
        async for _ in llm.stream("Hi"):
            pass

    async with AsyncRemoteLLM(server.address) as llm:
        for work in (llm.generate("Hi"), read(llm)):
            before = len(server.requests)
            task = asyncio.create_task(work)  # type: ignore[arg-type]
            await until(lambda before=before: len(server.requests) > before)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await released(server)


async def test_a_timeout_of_asyncio_stays_a_timeout(server: Any) -> None:
    server.go_on_for_ever()
    async with AsyncRemoteLLM(server.address) as llm:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await llm.generate("Hi")
        assert await released(server)


def test_closing_the_client_ends_calls_of_other_threads(server: Any) -> None:
    server.go_on_for_ever()
    llm = RemoteLLM(server.address)
    caught: list[BaseException] = []

    def ask(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    calls = (lambda: llm.generate("Hi"), lambda: list(llm.stream("Hi")))
    threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    while server.running < 2:
        time.sleep(0.01)
    llm.close()
    for thread in threads:
        thread.join(GUARD)
    assert [type(error) for error in caught] == [GenerationCancelledError] * 2
    for call in calls:
        with pytest.raises(GenerationCancelledError, match="closed"):
            call()


async def test_closing_the_asynchronous_client_ends_its_calls(server: Any) -> None:
    server.go_on_for_ever()
    llm = AsyncRemoteLLM(server.address)

    async def read() -> None:
        async for _ in llm.stream("Hi"):
            pass

    tasks = [asyncio.create_task(llm.generate("Hi")), asyncio.create_task(read())]
    await until(lambda: server.running == 2)
    await llm.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [GenerationCancelledError] * 2
    with pytest.raises(GenerationCancelledError, match="closed"):
        await llm.generate("Hi")
    await llm.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently")
@pytest.mark.parametrize(
    "call",
    [
        "llm.generate('Hi')",
        "list(llm.stream('Hi'))",
        "asyncio.run(llm.generate_async('Hi'))",
    ],
)
def test_ctrl_c_ends_the_generation(server: Any, call: str) -> None:
    server.go_on_for_ever()
    script = (
        "import asyncio, sys\nfrom abstractllm_client import RemoteLLM\n"
        f"llm = RemoteLLM({server.address!r})\n"
        f"try:\n    {call}\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + GUARD
            while not server.running and time.monotonic() < deadline:
                time.sleep(0.01)
            # An interrupt in the very millisecond in which gRPC starts a call would leave nobody to cancel it.
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            # The process still lives, so it is the cancelled call, not a lost connection, that ends it there.
            assert server.released.wait(GUARD)
            output, _ = process.communicate("", timeout=GUARD)
            assert output == "interrupted\n"
        finally:
            process.kill()


def test_one_client_serves_one_loop_after_another(server: Any) -> None:
    server.say("Hello")
    llm = RemoteLLM(server.address)
    for _ in range(3):
        assert asyncio.run(llm.generate_async("Hi")) == "Hello"
    assert len(llm._async._by_loop._by_loop) == 1  # only the last, whose loop is closed by now

    async def ask() -> str:
        async with llm:
            return await llm.generate_async("Hi")

    assert asyncio.run(ask()) == "Hello"
    with pytest.raises(GenerationCancelledError):
        llm.generate("Hi")


def test_one_client_serves_several_loops_at_once(server: Any) -> None:
    server.say("Hello")
    llm = AsyncRemoteLLM(server.address)
    answers: list[str] = []

    async def ask() -> None:
        answers.extend([await llm.generate("Hi") for _ in range(5)])

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert answers == ["Hello"] * 20
    asyncio.run(llm.close())


async def test_the_synchronous_client_works_within_a_running_loop(server: Any) -> None:
    server.say("Hello")
    with RemoteLLM(server.address) as llm:
        assert llm.generate("Hi") == "Hello"
        assert await llm.generate_async("Hi") == "Hello"
        assert client.Finished in {type(event) for event in llm.stream("Hi")}
