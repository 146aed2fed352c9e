"""The beginnings of the methods that gRPC itself defines, in each version of their services."""

from __future__ import annotations

__all__ = ["HEALTH_PREFIX", "REFLECTION_PREFIX"]

HEALTH_PREFIX = "/grpc.health.v1."
REFLECTION_PREFIX = "/grpc.reflection."
