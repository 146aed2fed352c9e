"""A protoc plugin that writes the `*_pb2_grpc.py` modules.

`buf generate` runs plugins. The generator of gRPC's Python service code is none: it is built into
grpcio-tools' own compiler. This hands a plugin request over to that compiler as a descriptor set.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

EXPERIMENTAL = "\n\n # This class is part of an EXPERIMENTAL API.\n"
"""The beginning of a second way to call each method. It is left out: gRPC may change or remove it, the type stubs do
not have it, and it is a third of each file."""


def main() -> None:
    """Reads a CodeGeneratorRequest from standard input, and writes its response to standard output."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out = Path(folder, "out")
        out.mkdir()
        arguments = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *arguments, *request.file_to_generate]) != 0:
            response.error = "grpcio-tools failed; its own message is above"
        for path in sorted(out.rglob("*.py")):
            content = path.read_text("utf-8")
            content = content.partition(EXPERIMENTAL)[0].rstrip("\n") + "\n"
            response.file.add(name=path.relative_to(out).as_posix(), content=content)
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
