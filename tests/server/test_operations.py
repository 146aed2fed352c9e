"""The operations of grpc that calls begin: they come to their end, and keep nothing, however their call ends."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from abstractllm.registry import LLMRegistry
from abstractllm.testing import ScriptedProvider
from abstractllm_server.app import Server
from abstractllm_server.settings import ServerSettings
from abstractllm_server.transport.operations import Operations, ServerLoop
from tests.reliability.calls import GENERATE, STREAM, request
from tests.reliability.http2 import RawConnection, header_block
from tests.reliability.tokens import TOKEN, token_file
from tests.server.local import PATIENCE
from tests.waiting import until

ONE, STREAMED = header_block(GENERATE, TOKEN), header_block(STREAM, TOKEN)
MESSAGE = request(llm="echo").SerializeToString()
WIDE = 2**31 - 1


class Batch:
    """A batch of operations as grpc's coroutine runs it: what it has is freed at its end alone."""

    def __init__(self) -> None:
        self.future: asyncio.Future[None] | None = None
        self.is_freed = False

    async def execute(self) -> str:
        self.future = asyncio.get_running_loop().create_future()
        await self.future
        self.is_freed = True
        return "done"

    def succeed(self) -> None:
        assert self.future is not None
        self.future.set_result(None)

    def fail(self) -> None:
        assert self.future is not None
        self.future.set_exception(aio.InternalError("the connection is closed"))


def on_server_loop(test: Callable[[Operations, Batch], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(Operations(asyncio.get_running_loop()), Batch()), 20)

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        runner.run(main())


async def begun(operations: Operations, batch: Batch) -> asyncio.Task[str]:
    task = asyncio.create_task(operations.run(batch.execute()))
    await asyncio.sleep(0)
    assert batch.future is not None
    return task


async def cancelled(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_an_operation_brings_its_result() -> None:
    async def test(operations: Operations, batch: Batch) -> None:
        task = await begun(operations, batch)
        batch.succeed()
        assert await task == "done"

    on_server_loop(test)


def test_an_operation_whose_caller_is_cancelled_comes_to_its_end() -> None:
    async def test(operations: Operations, batch: Batch) -> None:
        await cancelled(await begun(operations, batch))
        assert not batch.is_freed
        batch.succeed()
        await asyncio.sleep(0)
        assert batch.is_freed

    on_server_loop(test)


def test_an_operation_that_fails_comes_to_its_end_and_its_caller_hears_of_it() -> None:
    async def test(operations: Operations, batch: Batch) -> None:
        task = await begun(operations, batch)
        batch.fail()
        with pytest.raises(aio.InternalError, match="closed"):
            await task
        assert batch.is_freed

    on_server_loop(test)


def test_an_operation_that_fails_after_its_caller_has_left_comes_to_its_end() -> None:
    async def test(operations: Operations, batch: Batch) -> None:
        await cancelled(await begun(operations, batch))
        batch.fail()
        await asyncio.sleep(0)
        assert batch.is_freed

    on_server_loop(test)


def test_an_operation_that_is_abandoned_does_nothing_more() -> None:
    async def test(operations: Operations, batch: Batch) -> None:
        await cancelled(await begun(operations, batch))
        operations.abandon()
        batch.succeed()
        await asyncio.sleep(0)
        assert not batch.is_freed

    on_server_loop(test)


async def test_on_any_other_event_loop_operations_are_as_grpc_has_them() -> None:
    operations, batch = Operations(asyncio.get_running_loop()), Batch()
    task = await begun(operations, batch)
    batch.fail()
    with pytest.raises(aio.InternalError):
        await task
    assert not batch.is_freed


# The call, the window of its stream, and the seconds until its connection is closed.
WAYS: dict[str, tuple[Callable[[RawConnection], Any], int, float]] = {
    "reset": (lambda connection: connection.reset(connection.start(ONE)), WIDE, 0.5),
    "closed": (lambda connection: connection.start(ONE), WIDE, 0.3),
    "expired": (lambda connection: connection.start(ONE), WIDE, PATIENCE),
    "unread": (lambda connection: connection.unary(STREAMED, MESSAGE), 0, PATIENCE),
    "left_unread": (lambda connection: connection.unary(STREAMED, MESSAGE), 0, 0.5),
}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of the operations that calls begin, how many came to which end."""
    counts = Counter[str]()

    async def watched(operation: Coroutine[Any, Any, Any]) -> Any:
        counts["begun"] += 1
        end = "ended"
        try:
            return await operation
        except (asyncio.CancelledError, GeneratorExit):
            end = "forgotten"
            raise
        except aio.InternalError:
            end = "failed"
            raise
        finally:
            counts[end] += 1

    run = Operations.run
    monkeypatch.setattr(Operations, "run", lambda self, operation: run(self, watched(operation)))
    return counts


def on_server(folder: Path, test: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    """Runs a test beside a server whose callers have a second to send and to read."""

    async def main() -> None:
        settings = ServerSettings(
            listen="127.0.0.1:0", llms={"echo": {}}, tokens=token_file(folder), read_timeout=1, write_timeout=1
        )
        server = Server(LLMRegistry({"echo": ScriptedProvider()}), settings)
        await server.start()
        await test(server)
        await server.stop(0)

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_operations_of_calls_that_their_callers_give_up_come_to_their_end(
    way: str, tmp_path: Path, counts: Counter[str]
) -> None:
    async def test(server: Server) -> None:
        begin, window, seconds = WAYS[way]
        connection = await RawConnection.open(server.address, window=window)
        for _ in range(40):
            begin(connection)
        await connection.drain()
        # Those of a connection that stays end when the server ends the calls, or closes it.
        with suppress(TimeoutError):
            await until(lambda: counts["begun"] and counts["ended"] == counts["begun"], seconds)
        await connection.close()
        await until(lambda: server.running == 0 and counts["ended"] == counts["begun"])

    on_server(tmp_path, test)
    assert counts["begun"] > 0
    assert counts == {"begun": counts["begun"], "ended": counts["begun"]}


def test_operations_of_dropped_calls_come_to_their_end_where_other_calls_hold_their_connection_for_a_while(
    tmp_path: Path, counts: Counter[str]
) -> None:
    async def test(server: Server) -> None:
        connection = await RawConnection.open(server.address, window=0)
        for _ in range(4):  # a call of the connection runs until 1.5 seconds after the first ones were given up
            for _ in range(10):
                connection.unary(STREAMED, MESSAGE)
            await connection.drain()
            await asyncio.sleep(0.5)
        await until(lambda: server.running == 0 and counts["ended"] == counts["begun"])
        await connection.close()

    on_server(tmp_path, test)
    assert counts["begun"] > 0
    assert counts == {"begun": counts["begun"], "ended": counts["begun"]}


def test_dropped_calls_are_freed_though_their_connection_stays(tmp_path: Path, counts: Counter[str]) -> None:
    async def test(server: Server) -> None:
        connection = await RawConnection.open(server.address, window=0)
        for _ in range(10):
            connection.unary(STREAMED, MESSAGE)
        for _ in range(12):  # some call always runs on it
            connection.unary(STREAMED, MESSAGE)
            await connection.drain()
            await asyncio.sleep(0.5)
        assert counts["forgotten"] >= 10
        await connection.close()
        await until(lambda: server.running == 0)

    on_server(tmp_path, test)
