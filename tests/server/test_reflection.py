"""Reflection: a client without our files finds the services and calls them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.server.support import HANG, Serving, failure, serving

BUF = Path(sys.executable).with_name("buf")


VERSIONS = pytest.mark.parametrize("version", ["v1", "v1alpha"])


async def ask(served: Serving, version: str, **question: str) -> reflection_pb2.ServerReflectionResponse:
    """The answer to one question; the messages of both versions are the same but for their names."""
    call = served.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=HANG)
    return await call.read()


@VERSIONS
async def test_services_are_listed(served: Serving, version: str) -> None:
    answer = await ask(served, version, list_services="")
    assert {service.name for service in answer.list_services_response.service} == {
        "abstractllm_api.v1.GenerationService",
        "abstractllm_api.v1.ModelService",
        "abstractllm_api.v1.ConfigService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "xds.service.orca.v3.OpenRcaService",
    }


@VERSIONS
async def test_descriptors_are_served(served: Serving, version: str) -> None:
    answer = await ask(served, version, file_containing_symbol="abstractllm_api.v1.GenerationService")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    (methods,) = ([method.name for method in service.method] for file in files for service in file.service)
    assert methods == ["Generate", "StreamGenerate", "CountTokens"]


@VERSIONS
async def test_each_version_describes_itself(served: Serving, version: str) -> None:
    answer = await ask(served, version, file_containing_symbol=f"grpc.reflection.{version}.ServerReflection")
    (data,) = answer.file_descriptor_response.file_descriptor_proto
    file = descriptor_pb2.FileDescriptorProto.FromString(data)
    assert file.package == f"grpc.reflection.{version}"
    (method,) = file.service[0].method
    assert method.input_type == f".grpc.reflection.{version}.ServerReflectionRequest"


async def test_reflection_can_be_switched_off() -> None:
    async with serving(reflection=False) as served:
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([question]), timeout=HANG)
        assert (await failure(call.read())).code.name == "UNIMPLEMENTED"
        await served.works()


async def test_buf_curl_calls_by_reflection(served: Serving) -> None:
    import asyncio

    url = f"http://{served.server.address}/abstractllm_api.v1.GenerationService/StreamGenerate"
    process = await asyncio.create_subprocess_exec(
        *(BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "-d", '{"prompt": "hello there"}', url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 3 * HANG)
    assert process.returncode == 0, err.decode()
    decoder, events, rest = json.JSONDecoder(), [], out.decode().strip()
    while rest:
        event, end = decoder.raw_decode(rest)
        events.append(event)
        rest = rest[end:].lstrip()
    assert [next(iter(event)) for event in events] == ["started", "textDelta", "textDelta", "finished"]
    assert events[-1]["finished"]["message"]["parts"] == [{"text": "hello there"}]
