"""A contract known from its descriptor set alone: clients and servers of older and of newer versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).with_name("buf")
PACKAGE = "abstractllm_api.v1"


def released() -> list[Path]:
    """The descriptor sets of all releases, oldest first."""
    return sorted(
        (ROOT / "proto/released").glob("*.binpb"), key=lambda path: [int(part) for part in path.stem.split(".")]
    )


def run_buf(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


class Sources:
    """A copy of proto/, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "proto", folder / "proto")
        shutil.copy(ROOT / "buf.yaml", folder)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces what stands there once."""
        path = self.folder / "proto/abstractllm_api/v1" / f"{file}.proto"
        text = path.read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}"
        path.write_text(text.replace(old, new), "utf-8")

    def compatible(self) -> str:
        """Returns the output of `buf breaking` against the last release; nothing where all is well."""
        done = run_buf("breaking", "--against", str(released()[-1]), cwd=self.folder)
        assert done.returncode == (100 if done.stdout else 0), done.stderr
        return done.stdout

    def build(self) -> Contract:
        path = self.folder / "contract.binpb"
        done = run_buf("build", "--as-file-descriptor-set", "--output", str(path), cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return Contract(path)


class Contract:
    """The messages, the calls and the handlers of one version, next to which others may live in this process.

    Attributes:
        methods: By `Service.Method`.
    """

    def __init__(self, path: Path) -> None:
        self._pool = DescriptorPool()  # of its own: the default one holds today's generated code
        files = FileDescriptorSet.FromString(path.read_bytes()).file
        for file in files:
            self._pool.Add(file)
        self.methods: dict[str, MethodDescriptor] = {
            f"{service.name}.{method.name}": method
            for file in files
            for service in self._pool.FindFileByName(file.name).services_by_name.values()
            for method in service.methods
        }

    def message(self, name: str, fields: Mapping[str, Any] | None = None) -> Any:
        """A message, from its fields as JSON has them."""
        kind = GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        return ParseDict(dict(fields or {}), kind())

    def call(self, channel: aio.Channel, name: str, fields: Mapping[str, Any], timeout: float = 60) -> Any:
        """Begins a call, as a stub of this version would."""
        method = self.methods[name]
        kinds = {
            "request_serializer": GetMessageClass(method.input_type).SerializeToString,
            "response_deserializer": GetMessageClass(method.output_type).FromString,
        }
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        stub = make(f"/{method.containing_service.full_name}/{method.name}", **kinds)
        return stub(self.message(method.input_type.name, fields), timeout=timeout)

    async def ask(self, channel: aio.Channel, name: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Makes a call; its answers, one for a unary call, as JSON has them."""
        call = self.call(channel, name, fields)
        answers = [answer async for answer in call] if self.methods[name].server_streaming else [await call]
        return [MessageToDict(answer, preserving_proto_field_name=True) for answer in answers]

    @asynccontextmanager
    async def serving(self, answers: Mapping[str, Callable[[Any], list[Mapping[str, Any]]]]) -> AsyncIterator[str]:
        """Serves methods on a free port, each with a function from the request to its answers; gives its address."""
        server = aio.server()
        handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for name, answer in answers.items():
            service = self.methods[name].containing_service.full_name
            handlers.setdefault(service, {})[self.methods[name].name] = self._handler(self.methods[name], answer)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(service, service_methods)
                for service, service_methods in handlers.items()
            ]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)

    def _handler(
        self, method: MethodDescriptor, answer: Callable[[Any], list[Mapping[str, Any]]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def whole(request: Any, context: Any) -> Any:
            (fields,) = answer(request)
            return self.message(method.output_type.name, fields)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            for fields in answer(request):
                yield self.message(method.output_type.name, fields)

        kinds = {
            "request_deserializer": GetMessageClass(method.input_type).FromString,
            "response_serializer": GetMessageClass(method.output_type).SerializeToString,
        }
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **kinds)
        return grpc.unary_unary_rpc_method_handler(whole, **kinds)
