"""The services of the contract, each with the class that answers its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from abstractllm.registry import LLMRegistry
from abstractllm_api.v1 import (
    config_pb2,
    config_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)
from abstractllm_server.security.roles import inference_paths
from abstractllm_server.services.config import ConfigServicer
from abstractllm_server.services.generation import GenerationServicer
from abstractllm_server.services.models import ModelServicer

__all__ = ["add_services", "admin_paths", "generation_paths", "paths_open_to_inference", "service_names"]

Registration = Callable[[Any, Any], None]

# The file that describes a service, the class that answers its calls, and how that is added to a server.
_SERVICES: tuple[tuple[FileDescriptor, type[Any], Registration], ...] = (
    (generation_pb2.DESCRIPTOR, GenerationServicer, generation_pb2_grpc.add_GenerationServiceServicer_to_server),
    (models_pb2.DESCRIPTOR, ModelServicer, models_pb2_grpc.add_ModelServiceServicer_to_server),
    (config_pb2.DESCRIPTOR, ConfigServicer, config_pb2_grpc.add_ConfigServiceServicer_to_server),
)


def add_services(server: Any, registry: LLMRegistry) -> None:
    """Lets a server, or the table of methods that stands for it, answer the calls of every service."""
    for _, servicer, register in _SERVICES:
        register(servicer(registry), server)


def service_names() -> list[str]:
    """Returns the full names of the services."""
    return [_service_of(file).full_name for file, _, _ in _SERVICES]


def generation_paths() -> Iterator[str]:
    """Yields the methods (`/SERVICE/METHOD`) that generate."""
    service = _service_of(generation_pb2.DESCRIPTOR)
    yield from (f"/{service.full_name}/{name}" for name in ("Generate", "StreamGenerate"))


def paths_open_to_inference() -> Iterator[str]:
    """Yields the methods (`/SERVICE/METHOD`) and whole services (`/SERVICE/`) that the role `inference` may call."""
    for file, servicer, _ in _SERVICES:
        yield from inference_paths(_service_of(file), servicer)


def admin_paths() -> Iterator[str]:
    """Yields the methods (`/SERVICE/METHOD`) that only the role `admin` may call."""
    for file, servicer, _ in _SERVICES:
        service = _service_of(file)
        is_open = set(inference_paths(service, servicer))
        if f"/{service.full_name}/" not in is_open:
            paths = (f"/{service.full_name}/{method.name}" for method in service.methods)
            yield from (path for path in paths if path not in is_open)


def _service_of(file: FileDescriptor) -> ServiceDescriptor:
    (service,) = file.services_by_name.values()
    return service
