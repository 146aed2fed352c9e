"""Spans of calls to hosted LLMs, and the headers that let a trace go on there, by OpenTelemetry.

The library does not depend on OpenTelemetry and does not load it: where the program, or the server around it, has
loaded its API, calls become spans of its tracer. Neither content nor keys are part of one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from abstractllm.call_record import CallRecord, UpstreamCall

__all__ = ["end_span", "inject", "start_span", "within_span"]


def start_span(upstream: UpstreamCall, record: CallRecord) -> None:
    """Begins the span of a call that is about to be made, if there is anybody who traces.

    Args:
        upstream: The call.
        record: The record of the call that it is made for, whose trace may bring a `tracer`; else the program's is
            taken.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": upstream.provider,
        "gen_ai.request.model": upstream.model,
        "abstractllm.llm": upstream.llm,
    }
    if upstream.address:
        attributes["server.address"] = upstream.address
        if upstream.port is not None:
            attributes["server.port"] = upstream.port
    tracer = getattr(record.trace, "tracer", None) or trace.get_tracer("abstractllm")
    upstream.trace = tracer.start_span(
        f"chat {upstream.model}",
        kind=trace.SpanKind.CLIENT,
        attributes=attributes,
        start_time=upstream.began_at_ns,
    )


@contextmanager
def within_span(upstream: UpstreamCall) -> Iterator[None]:
    """Makes the call's span the current one, of which `inject` tells; not to be held while others get control."""
    if upstream.trace is None:
        yield
        return
    context, trace = sys.modules["opentelemetry.context"], sys.modules["opentelemetry.trace"]
    token = context.attach(trace.set_span_in_context(upstream.trace))
    try:
        yield
    finally:
        context.detach(token)


def end_span(upstream: UpstreamCall) -> None:
    """Ends a call's span, with all that is known of the call."""
    span = upstream.trace
    if span is None:
        return
    if span.is_recording():
        usage = upstream.usage
        values: dict[str, Any] = {
            "gen_ai.usage.input_tokens": usage and usage.input_tokens,
            "gen_ai.usage.output_tokens": usage and usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage and usage.cached_input_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage and usage.reasoning_tokens,
            "error.type": str(upstream.error_reason) or None,
        }
        if upstream.first_event_at is not None:
            values["gen_ai.response.time_to_first_chunk"] = upstream.first_event_at - upstream.began_at
        span.set_attributes({name: value for name, value in values.items() if value is not None})
        if upstream.error_reason:
            trace = sys.modules["opentelemetry.trace"]
            span.set_status(trace.StatusCode.ERROR, str(upstream.error_reason))
    duration = (upstream.ended_at or time.monotonic()) - upstream.began_at
    span.end(upstream.began_at_ns + int(duration * 1e9))


def inject(headers: MutableMapping[str, str]) -> None:
    """Adds the headers of the current trace (`traceparent`) to those of a request, if there is one."""
    if "opentelemetry.trace" not in sys.modules:
        return
    try:
        from opentelemetry import propagate
    except Exception:  # the environment names a propagator that is not installed: OpenTelemetry has told so
        return
    propagate.inject(headers)
