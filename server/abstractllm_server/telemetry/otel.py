"""OpenTelemetry's usual variables, which say where metrics and traces are sent, and the description of this process.

Nothing is sent unless a variable says so: an exporter's name, or an address. The SDK reads the rest of its variables
(headers, certificates, intervals, sampling) itself; it is imported where something is switched on, and not before.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from abstractllm.errors import ConfigurationError
from abstractllm_server.telemetry.otel_variables import Signal, check_variables

if TYPE_CHECKING:  # importing the SDK takes a fifth of a second
    from opentelemetry.sdk.resources import Resource

__all__ = ["counting_sdk", "resource", "sends"]


def sends(signal: Signal) -> bool:
    """Tells whether a signal is sent by OTLP.

    `OTEL_METRICS_EXPORTER` or `OTEL_TRACES_EXPORTER` decides, where set; else an address that is set in
    `OTEL_EXPORTER_OTLP_ENDPOINT` or in the signal's own variable. `OTEL_SDK_DISABLED=true` switches off both.

    Raises:
        ConfigurationError: If a variable names an exporter, or a protocol, that there is none of, or says in a way that
            cannot be how the signal is sent.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = {name.strip() for name in os.environ.get(variable, "").split(",")} - {"", "none"}
    if unknown := names - ({"otlp", "prometheus"} if signal == "metrics" else {"otlp"}):
        raise ConfigurationError(
            f"the environment variable {variable} names the exporter {min(unknown)!r:.80}; otlp and none are known",
            field=variable,
            limit="otlp, none",
            requested=min(unknown)[:80],
        )
    own_prefix = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    has_address = bool(os.environ.get(f"{own_prefix}_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    is_sent = "otlp" in names if os.environ.get(variable, "").strip() else has_address
    if is_sent:
        _check_protocol(f"{own_prefix}_PROTOCOL")
        check_variables(signal)
    return is_sent


@contextmanager
def counting_sdk() -> Iterator[None]:
    """Lets the SDK count for who reads metrics here, also where `OTEL_SDK_DISABLED` says that nothing is to be sent.

    It would make instruments that count nothing, and `/metrics` would be empty.
    """
    disabled = os.environ.pop("OTEL_SDK_DISABLED", None)
    try:
        yield
    finally:
        if disabled is not None:
            os.environ["OTEL_SDK_DISABLED"] = disabled


def _check_protocol(variable: str) -> None:
    for name in (variable, "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := os.environ.get(name):
            if protocol != "grpc":
                raise ConfigurationError(
                    f"the environment variable {name} is {protocol!r:.80}; OTLP is sent by grpc alone",
                    field=name,
                    limit="grpc",
                    requested=protocol[:80],
                )
            return


@cache
def resource() -> Resource:
    """Returns the description of this process for metrics and traces: name, version and a random id.

    `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` replace them, and add to them.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    defaults = {
        "service.name": "abstractllm",
        "service.version": version("abstractllm-grpc"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create(defaults).merge(OTELResourceDetector().detect())
