"""The trace of a program that uses OpenTelemetry goes on at the server; other programs load nothing of it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

from abstractllm_api.v1 import generation_pb2 as pb
from abstractllm_client import AsyncRemoteLLM, RemoteLLM

TRACER = TracerProvider(shutdown_on_exit=False).get_tracer("program")


@pytest.fixture
def calls() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a server that answers counts and streams, and the metadata of its calls."""
    received: list[dict[str, str]] = []

    def count(_request: object, context: Any) -> Any:
        received.append(dict(context.invocation_metadata()))
        return pb.CountTokensResponse(input_tokens=1)

    def stream(_request: object, context: Any) -> Iterator[Any]:
        received.append(dict(context.invocation_metadata()))
        yield pb.StreamGenerateResponse(finished=pb.Finished())

    methods = {
        "CountTokens": grpc.unary_unary_rpc_method_handler(
            count, pb.CountTokensRequest.FromString, pb.CountTokensResponse.SerializeToString
        ),
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(
            stream, pb.GenerateRequest.FromString, pb.StreamGenerateResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("abstractllm_api.v1.GenerationService", methods)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", received
    server.stop(0).wait()


async def ask_async(address: str, **options: Any) -> None:
    async with AsyncRemoteLLM(address, **options) as llm:
        await llm.count_tokens("Hi")
        async for _ in llm.stream("Hi"):
            pass


async def ask(address: str, **options: Any) -> None:
    with RemoteLLM(address, **options) as llm:
        llm.count_tokens("Hi")
        list(llm.stream("Hi"))
        await llm.count_tokens_async("Hi")


@pytest.mark.parametrize("call", [ask, ask_async])
async def test_calls_carry_the_current_context(calls: tuple[str, list[dict[str, str]]], call: Callable) -> None:
    address, received = calls
    with TRACER.start_as_current_span("program") as span:
        await call(address)
    context = span.get_span_context()
    assert len(received) >= 2
    for metadata in received:
        assert metadata["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


@pytest.mark.parametrize("call", [ask, ask_async])
async def test_calls_outside_of_a_trace_carry_none(calls: tuple[str, list[dict[str, str]]], call: Callable) -> None:
    address, received = calls
    await call(address)
    assert received and not any("traceparent" in metadata for metadata in received)


@pytest.mark.parametrize("call", [ask, ask_async])
async def test_metadata_of_the_caller_come_first(calls: tuple[str, list[dict[str, str]]], call: Callable) -> None:
    address, received = calls
    chosen = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with TRACER.start_as_current_span("program"):
        await call(address, metadata={"traceparent": chosen})
    assert {metadata["traceparent"] for metadata in received} == {chosen}


def test_program_without_opentelemetry_loads_nothing_of_it(calls: tuple[str, list[dict[str, str]]]) -> None:
    address, received = calls
    code = (
        "import sys\n"
        "from abstractllm_client import RemoteLLM\n"
        f"with RemoteLLM({address!r}) as llm: llm.count_tokens('Hi')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
    assert "traceparent" not in received[-1]
