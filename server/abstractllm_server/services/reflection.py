"""The reflection services: a client without our files finds the services and calls them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

__all__ = ["REFLECTION_SERVICES", "add_reflection"]

_ALPHA_PACKAGE = "grpc.reflection.v1alpha"
_PACKAGE = "grpc.reflection.v1"
REFLECTION_SERVICES = (f"{_PACKAGE}.ServerReflection", reflection.SERVICE_NAME)
"""The full names of the service, as it is now and as older clients ask for it."""


def add_reflection(names: Collection[str], server: Any) -> None:
    """Lets a server describe services to whoever may ask.

    grpc ships v1alpha alone. The messages of v1 are the same ones under other names, so one servicer answers both.

    Args:
        names: The full names of the services.
        server: The server, or the table of methods that stands for it.
    """
    _describe_current_version()
    servicer = ReflectionServicer([*names, *REFLECTION_SERVICES])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, _Renaming(server))


class _Renaming:
    """Registers a service of v1alpha under the name that it has in v1."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Does nothing: the methods come by the other way too."""

    def add_registered_method_handlers(self, _service: str, handlers: Any) -> None:
        self._server.add_registered_method_handlers(REFLECTION_SERVICES[0], handlers)


def _describe_current_version() -> None:
    """Adds the description of v1 to the known ones, unless a library has."""
    pool = descriptor_pool.Default()
    path = "grpc/reflection/v1/reflection.proto"
    try:
        pool.FindFileByName(path)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        _rename(file)
        file.name = path
        pool.AddSerializedFile(file.SerializeToString())


def _rename(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Moves all that a file describes to the package of v1."""
    file.package = _PACKAGE
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(_ALPHA_PACKAGE, _PACKAGE)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(_ALPHA_PACKAGE, _PACKAGE)
            method.output_type = method.output_type.replace(_ALPHA_PACKAGE, _PACKAGE)
