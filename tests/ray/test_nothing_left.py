"""A thousand calls leave nothing behind: no actor, no task, no descriptor, no thread."""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest

from tests.ray.replicas import echo, reports
from tests.server.support import HANG, Serving, request, serving
from tests.waiting import until

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("ray_address")]
CALLS, AT_A_TIME = 1000, 25


async def test_a_thousand_calls_leave_nothing_behind() -> None:
    llm = echo()
    async with serving({"echo": llm}) as server:
        await llm.load()
        await _call(server, 100)  # what is made once is there
        before, actors = await _census(llm), _actors()
        await _call(server, CALLS)
        # Descriptors and threads of a pool may come and go; what stays of each call would be hundreds.
        await until(lambda: llm.running == 0, HANG)
        after = await _census(llm)
        for name, count in before.items():
            assert after[name] <= count + 5, f"{name}: {count} before, {after[name]} after {CALLS} calls"
        # Those of other tests may still be ending.
        assert _actors() <= actors


async def _call(server: Serving, calls: int) -> None:
    """Makes calls, a third of them whole, a third streams, a third streams that are left."""
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> None:
        async with turns:
            if number % 3 == 0:
                assert (await server.generation.Generate(request(f"call {number}"))).text == f"call {number}"
                return
            stream = server.generation.StreamGenerate(request("one two three four"))
            async for _ in stream:
                if number % 3 == 1:
                    stream.cancel()
                    break

    await asyncio.gather(*(one(number) for number in range(calls)))


def _actors() -> set[str]:
    """The names of all actors in Ray."""
    import ray

    return {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}


async def _census(llm) -> dict[str, int]:
    """Counts what there is in the replica's process, and in the server's."""
    gc.collect()
    (report,) = await reports(llm)
    replica, server = psutil.Process(report["pid"]), psutil.Process()
    return {
        "requests": report["running"] + report["queued"],
        "the replica's tasks": report["tasks"],
        "the replica's descriptors": replica.num_fds(),
        "the replica's threads": replica.num_threads(),
        "the server's descriptors": server.num_fds(),
        "the server's threads": server.num_threads(),
        "the server's tasks": len(asyncio.all_tasks()),
    }
