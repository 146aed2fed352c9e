"""The spans of each call, by OpenTelemetry: made from its record, so that nothing is traced while tokens flow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from abstractllm.call_record import CallRecord
from abstractllm_server.telemetry.observer import Metadata
from abstractllm_server.telemetry.otel import resource

__all__ = ["CallTrace", "Traces"]

_PROBES = ("/grpc.health.", "/grpc.reflection.")
_OTHER_METHOD = "_OTHER"
_LONGEST_VALUE = 256
_MOST_LABELS = 32
_FAULTS_OF_THE_SERVER = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The statuses that make a server's span one of an error, by the semantic conventions."""
_CLOSE_SECONDS = 0.3
_SCOPE = InstrumentationScope("abstractllm")


class CallTrace:
    """The place of a call in its trace.

    Attributes:
        span: The span of the whole call.
        tracer: Makes further spans. It is not that of the whole process: SDKs would use it, too, and their spans may
            repeat what an API says.
        trace_id: The id of the trace, in hexadecimal digits.
    """

    __slots__ = ("span", "trace_id", "tracer")

    def __init__(self, span: Span, tracer: Tracer) -> None:
        self.span = span
        self.tracer = tracer
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)


class Traces:
    """Observes calls, and makes spans of them: the call; the model's work; waiting, prefill and decode.

    A caller's trace goes on here (`traceparent`, `tracestate`), and from here at hosted LLMs. Health checks,
    reflection and callers who are not known have no spans. Neither content nor tokens of access are part of a span.

    Args:
        exporter: The place that spans are sent to, by a thread, in batches.
        is_method: Tells whether there is a method `/package.Service/Method`.
    """

    def __init__(self, exporter: SpanExporter, is_method: Callable[[str], bool]) -> None:
        self._is_method = is_method
        # A caller's baggage is not passed on to hosted LLMs, nor read.
        self._headers = propagate.get_global_textmap().fields - {"baggage"}
        self._processor = BatchSpanProcessor(exporter)
        # The exit does not wait for a collector that does not answer: `close` does, for a moment.
        self._provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer(_SCOPE.name)

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Begins a call's span, and makes it the current one of the call's task."""
        if record.method.startswith(_PROBES):
            return
        headers = {key: value for key, value in metadata if key in self._headers}
        caller_context = baggage.clear(propagate.extract(headers, context.Context()))
        span = self._tracer.start_span(
            record.method.removeprefix("/") if self._is_method(record.method) else _OTHER_METHOD,
            caller_context,
            SpanKind.SERVER,
            start_time=record.arrived_at_ns,
        )
        record.trace = CallTrace(span, self._tracer)
        context.attach(trace.set_span_in_context(span, caller_context))

    def ended(self, record: CallRecord) -> None:
        """Ends a call's span, with what is known of the call by now."""
        # A span that does not end is not sent: strangers must not fill the collector.
        if not isinstance(record.trace, CallTrace) or not record.caller:
            return
        span = record.trace.span
        if span.is_recording():
            self._describe(span, record)
            if record.operation == "chat" and record.provider:
                self._add_phases(span, record)
        span.end(_at(record, record.ended_at))

    def close(self) -> None:
        """Sends what has not been sent; waits a moment for that, and no longer."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)

    def _describe(self, span: Span, record: CallRecord) -> None:
        is_known = self._is_method(record.method)
        values: dict[str, Any] = {
            "rpc.system.name": "grpc",
            "rpc.method": record.method.removeprefix("/") if is_known else _OTHER_METHOD,
            "rpc.method_original": None if is_known else record.method,
            "rpc.response.status_code": record.status or None,
            "error.type": record.error_type,
            **_peer_attributes(record.peer),
            "abstractllm.caller": record.caller,
            "abstractllm.llm": record.llm,
            "abstractllm.replica": record.replica or None,
            "abstractllm.request_id": record.request_id,
        }
        for key, value in list(record.labels.items())[:_MOST_LABELS]:
            values[f"abstractllm.label.{key[:_LONGEST_VALUE]}"] = value
        if record.status in _FAULTS_OF_THE_SERVER:
            span.set_status(StatusCode.ERROR, record.error_type)
        span.set_attributes(_told(values))

    def _add_phases(self, call: Span, record: CallRecord) -> None:
        """Adds the span of a local model's work, and those of waiting, prefill and decode, as far as each has come."""
        parent = call.get_span_context()
        # A hosted LLM's spans are those of its calls; another one may have failed before a local one answered.
        if record.provider not in {upstream.provider for upstream in record.upstream}:
            began, ended = record.arrived_at_ns, _at(record, record.ended_at)
            parent = self._add(parent, f"chat {record.model}", began, ended, _answer_attributes(record))
        for name, (begin, end) in _phases(record).items():
            self._add(parent, name, _at(record, begin), _at(record, end), {})

    def _add(self, parent: SpanContext, name: str, began: int, ended: int, values: dict[str, Any]) -> SpanContext:
        """Adds a span that has ended; as a tracer makes one it would take five times as long.

        Args:
            parent: The context of its parent, which is recorded: whether to record was decided there, for the trace.
            name: Its name.
            began: Its begin, in nanoseconds.
            ended: Its end, in nanoseconds.
            values: Its attributes; with `error.type`, it is one of an error.

        Returns:
            Its context.
        """
        span_id = self._provider.id_generator.generate_span_id()
        context = SpanContext(parent.trace_id, span_id, False, parent.trace_flags, parent.trace_state)
        error = values.get("error.type")
        span = ReadableSpan(
            name,
            context,
            parent,
            self._provider.resource,
            _told(values),
            status=Status(StatusCode.ERROR, error) if error else Status(),
            start_time=began,
            end_time=ended,
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(span)
        return context


def _phases(record: CallRecord) -> dict[str, tuple[float, float]]:
    """Returns begin and end of waiting, prefill and decode, counted back and forth from the first token."""
    phases: dict[str, tuple[float, float]] = {}
    turn = (record.arrived_at if record.tried_at is None else record.tried_at) + (record.queued or 0.0)
    if record.first_token_at is not None:
        if record.prefill is not None:
            turn = max(record.arrived_at, record.first_token_at - record.prefill)
            phases["prefill"] = (turn, record.first_token_at)
        if record.decode is not None:
            # It was measured in the engine; the first token was noted here a moment after it was there.
            ended = record.first_token_at + record.decode
            phases["decode"] = (record.first_token_at, min(ended, record.ended_at or ended))
    if record.queued is not None:
        phases = {"queue": (max(record.arrived_at, turn - record.queued), turn), **phases}
    return phases


def _answer_attributes(record: CallRecord) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": record.provider,
        "gen_ai.request.model": record.model,
        "gen_ai.response.finish_reasons": (record.finish_reason,) if record.finish_reason else None,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens,
        "gen_ai.response.time_to_first_chunk": record.time_to_first_token,
        "error.type": record.error_type,
    }


def _peer_attributes(peer: str) -> dict[str, Any]:
    """Returns the address and the port of a caller's connection, which gRPC tells as `ipv4:127.0.0.1:5`."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return {"network.peer.address": peer}
    host, _, port = address.rpartition(":")
    return {"network.peer.address": host.strip("[]"), "network.peer.port": int(port) if port.isdecimal() else None}


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes that there are, long ones cut."""
    return {
        name: value[:_LONGEST_VALUE] if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and value != ""
    }


def _at(record: CallRecord, moment: float | None) -> int:
    """Returns a time of the monotonic clock as the calendar's, in nanoseconds; now for None."""
    seconds = record.seconds if moment is None else moment - record.arrived_at
    return record.arrived_at_ns + int(seconds * 1e9)
