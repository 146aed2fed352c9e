"""The limits of replicas, and their number: refused where full, more where there is more to do."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from abstractllm.providers.ray import RayProvider
from tests.ray.replicas import REPLICA, reports, until_true
from tests.server.support import failure, failure_of, request, serving
from tests.waiting import LONGEST_WAIT, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("ray_address")]


async def test_more_requests_than_may_wait_are_refused() -> None:
    llm = RayProvider(REPLICA | {"serves": "scripted", "max_running": 1, "max_waiting": 1, "delete_on_stop": True})
    async with serving({"narrow": llm}) as server:
        await llm.load()
        streams = [server.generation.StreamGenerate(request("one two three", delay=30.0)) for _ in range(8)]
        readers = [asyncio.ensure_future(_end(stream)) for stream in streams]
        await until(lambda: sum(reader.done() for reader in readers) >= 5)
        errors = [reader.result() for reader in readers if reader.done()]
        for error in errors:
            assert isinstance(error, aio.AioRpcError)
            told = failure_of(error)
            assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
            assert told.retry_delays
            assert told.pushbacks == [str(int(told.retry_delays[0] * 1000))]
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_replicas_come_with_requests() -> None:
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_running": 1, "upscale_delay": 1, "downscale_delay": 600}
    keys = {"serves": "scripted", "autoscaling": scaling, "delete_on_stop": True}
    llm = RayProvider(REPLICA | keys)
    async with serving({"elastic": llm}) as server:
        await llm.load()
        assert len(await reports(llm)) == 1
        streams = [server.generation.StreamGenerate(request("word " * 200, delay=1.0)) for _ in range(4)]
        readers = [asyncio.ensure_future(_end(stream)) for stream in streams]
        async with asyncio.timeout(LONGEST_WAIT):
            while len(await reports(llm)) < 2:  # noqa: ASYNC110 # Ray sets no event
                await asyncio.sleep(0.2)
        await until(lambda: len(llm.replicas) == 2)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_what_a_replica_cannot_load_is_told_as_the_llm_itself_tells_it() -> None:
    keys = {"model": "/nowhere/model", "delete_on_stop": True, "deploy_timeout": 200}
    llm = RayProvider(REPLICA | keys)
    async with serving({"lost": llm}) as server:
        with pytest.raises(aio.AioRpcError) as caught:
            await server.generation.Generate(request("hi"))
        told = failure_of(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert "/nowhere/model" in told.message
        assert told.metadata["llm"] == "lost"


async def test_a_deployment_that_nobody_has_made() -> None:
    llm = RayProvider(REPLICA | {"serves": "scripted", "deploy": False})
    async with serving({"absent": llm}) as server:
        told = await failure(server.generation.Generate(request("hi")))
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert "abstractllm-absent" in told.message
        assert told.retry_delays

        async def is_serving() -> bool:
            answer = await server.health.Check(health_pb2.HealthCheckRequest(service="llm/absent"))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        assert not await is_serving()
        # As soon as it is there, it is used.
        maker = RayProvider(REPLICA | {"serves": "scripted", "application": "abstractllm-absent"})
        await maker.load()
        answer = await server.generation.Generate(request("there"))
        assert answer.text == "there"
        await until_true(is_serving)
        await maker.close_async()


async def test_a_deployment_for_which_the_cluster_has_no_room() -> None:
    llm = RayProvider(REPLICA | {"serves": "scripted", "num_gpus": 512, "deploy_timeout": 2, "delete_on_stop": True})
    async with serving({"vast": llm}) as server:
        with pytest.raises(aio.AioRpcError) as caught:
            await server.generation.Generate(request("hi"))
        told = failure_of(caught.value)
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
        assert "deploy_timeout" in told.message


async def _end(stream: aio.UnaryStreamCall) -> object:
    """Reads a stream; returns the error that it ends with."""
    try:
        async for _ in stream:
            pass
    except aio.AioRpcError as error:
        return error
    return None
