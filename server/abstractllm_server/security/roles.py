"""The role that each method of the contract needs: said beside its handler, `admin` where nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from abstractllm_server.settings import Role

__all__ = ["LOAD_STREAM", "OPEN_TO_ALL", "OPEN_TO_KNOWN_CALLERS", "inference_paths", "open_to_inference"]

OPEN_TO_ALL = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
"""The methods that need no credentials, since probes bring none. `List`, which names every LLM, is not one of them."""

LOAD_STREAM = frozenset({"/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"})
"""The method that tells the server's load; it needs credentials unless the configuration says otherwise."""

OPEN_TO_KNOWN_CALLERS = frozenset(
    {
        "/grpc.health.v1.Health/",
        "/grpc.reflection.v1.ServerReflection/",
        "/grpc.reflection.v1alpha.ServerReflection/",
        "/xds.service.orca.v3.OpenRcaService/",
    }
)
"""The services of gRPC itself that every known caller may call."""

_ROLE = "required_role"

Open = TypeVar("Open", bound=Callable[..., Any])


def open_to_inference(servicer_or_handler: Open) -> Open:
    """Opens all methods of a service, or the one that a handler answers, to the role `inference`; a decorator."""
    setattr(servicer_or_handler, _ROLE, Role.INFERENCE)
    return servicer_or_handler


def inference_paths(service: ServiceDescriptor, servicer: type) -> Iterator[str]:
    """Yields the paths that callers with the role `inference` may call: `/SERVICE/` or `/SERVICE/METHOD`.

    Args:
        service: The service as the contract describes it.
        servicer: The class whose handlers, named as the methods, answer its calls.
    """
    path = f"/{service.full_name}/"
    if _is_open(servicer):
        yield path
    else:
        yield from (path + method.name for method in service.methods if _is_open(getattr(servicer, method.name)))


def _is_open(servicer_or_handler: object) -> bool:
    return getattr(servicer_or_handler, _ROLE, Role.ADMIN) is Role.INFERENCE
