"""Refusals cost the server little: they come before the message, and leave nothing of it behind."""

import asyncio
import gc
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from abstractllm.requests import GenerationRequest
from abstractllm_api.v1 import generation_pb2 as pb
from tests.server.certificates import Authority
from tests.server.support import HANG, Serving, failure, request, serving


async def test_a_certificate_without_the_role_is_refused_before_the_message(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = Authority(tmp_path_factory.mktemp("root"))
    server, caller = root.sign("server"), root.sign("backend")
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": root.pair.certificate}
    credentials = grpc.ssl_channel_credentials(
        root.pair.certificate.read_bytes(), caller.key.read_bytes(), caller.certificate.read_bytes()
    )

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with serving(tls=tls | {"subjects": {"backend": "inference"}}) as running:
        port = running.server.address.rpartition(":")[2]
        async with aio.secure_channel(f"localhost:{port}", credentials) as channel:
            for path in ("/abstractllm_api.v1.ConfigService/SetConfig", "/abstractllm_api.v1.ModelService/PullModel"):
                error = await asyncio.wait_for(failure(channel.stream_stream(path)(never()).read()), HANG)
                assert (error.code.name, error.reason) == ("PERMISSION_DENIED", "NOT_ALLOWED")


async def test_a_refused_request_is_freed_at_once(served: Serving) -> None:
    def refused() -> pb.GenerateRequest:
        return request("canary", parameters=pb.GenerationParameters(model="none"))

    await failure(served.generation.Generate(refused()))
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            await failure(served.generation.Generate(refused()))
        await served.works()  # gRPC keeps the latest call until the next one
        alive = [thing for thing in gc.get_objects() if type(thing) is GenerationRequest and thing.prompt == "canary"]
    finally:
        gc.enable()
    # Of 20 that were refused.
    assert len(alive) <= 3
