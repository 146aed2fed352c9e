"""The metrics of calls: recorded once, at the end of each, from its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from abstractllm.call_record import CallRecord, UpstreamCall
from abstractllm.errors import ErrorReason
from abstractllm_server.settings import MetricsSettings
from abstractllm_server.telemetry.measurements import Measurement
from abstractllm_server.telemetry.observer import Metadata

if TYPE_CHECKING:  # importing OpenTelemetry takes time
    from opentelemetry.metrics import Counter as CounterInstrument
    from opentelemetry.metrics import Histogram

__all__ = ["LABEL_PREFIX", "CallMetrics"]

LABEL_PREFIX = "abstractllm.label."
"""The beginning of the attributes that callers' labels become."""
OTHER_METHOD = "_OTHER"
"""The method of calls whose method there is none of: callers could else make as many series as they like."""
_REFUSALS = frozenset(
    {
        ErrorReason.INVALID_REQUEST,
        ErrorReason.UNSUPPORTED_PARAMETER,
        ErrorReason.UNSUPPORTED_FEATURE,
        ErrorReason.CONTEXT_LENGTH_EXCEEDED,
        ErrorReason.MESSAGE_TOO_LARGE,
        ErrorReason.UNKNOWN_LLM,
        ErrorReason.MODEL_NOT_FOUND,
        ErrorReason.UNAUTHENTICATED,
        ErrorReason.NOT_ALLOWED,
        ErrorReason.RATE_LIMITED,
        ErrorReason.OVERLOADED,
        ErrorReason.SHUTTING_DOWN,
    }
)
"""The reasons of calls that were refused, if nothing had been done for them."""


class CallMetrics:
    """Observes calls, and records each once, when it has ended.

    Attributes have few values: the methods are those of the services, LLMs and models come from the configuration, and
    labels and callers are attributes only where the operator says so.

    Args:
        histograms: The histograms, by name.
        counters: The counters, by name.
        settings: The choice of labels and callers as attributes.
        is_method: Tells whether there is a method `/package.Service/Method`.
    """

    def __init__(
        self,
        histograms: Mapping[str, Histogram],
        counters: Mapping[str, CounterInstrument],
        settings: MetricsSettings,
        is_method: Callable[[str], bool],
    ) -> None:
        self._histograms = histograms
        self._counters = counters
        self._settings = settings
        self._is_method = is_method
        self._active = Counter[str]()
        for reason in sorted(_REFUSALS):
            # An alert sees no increase of a series that begins with its first event.
            counters["abstractllm.server.refusals"].add(0, {"error.type": str(reason)})

    def started(self, record: CallRecord, metadata: Metadata) -> None:
        """Counts a call that begins."""
        self._active[self._method(record)] += 1

    def ended(self, record: CallRecord) -> None:
        """Records a call that has ended."""
        method = self._method(record)
        self._active[method] -= 1
        error_type = {"error.type": record.error_type} if record.error_type else {}
        attributes = {"rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": record.status}
        self._record("rpc.server.call.duration", record.seconds, attributes | error_type)
        # What a hosted LLM refuses is not refused by this server.
        if error_type.get("error.type") in _REFUSALS and record.first_token_at is None and not record.upstream:
            self._add("abstractllm.server.refusals", 1, error_type)
        if record.operation == "chat" and record.provider:
            self._record_answer(record, error_type)
        for upstream in record.upstream:
            self._record_upstream(record, upstream)

    def measurements(self) -> Iterator[Measurement]:
        """Yields the calls that run now."""
        for method, calls in tuple(self._active.items()):
            yield Measurement("abstractllm.server.calls.active", calls, {"rpc.method": method})

    def _method(self, record: CallRecord) -> str:
        return record.method.removeprefix("/") if self._is_method(record.method) else OTHER_METHOD

    def _record_answer(self, record: CallRecord, error_type: dict[str, str]) -> None:
        """Records a request for an answer that has come as far as an LLM."""
        attributes = _gen_ai(record.provider, record.model) | {"abstractllm.llm": record.llm}
        if self._settings.callers:
            attributes["abstractllm.caller"] = record.caller
        for key in self._settings.labels:
            if (value := record.labels.get(key)) is not None:
                attributes[LABEL_PREFIX + key] = value
        self._record("gen_ai.server.request.duration", record.seconds, attributes | error_type)
        if not error_type:
            self._record("gen_ai.server.time_to_first_token", record.time_to_first_token, attributes)
            self._record("gen_ai.server.time_per_output_token", _time_per_output_token(record), attributes)
        self._record("abstractllm.server.queue.duration", record.waited, attributes)
        self._record("abstractllm.server.prefill.duration", record.prefill, attributes)
        self._record("abstractllm.server.decode.duration", record.decode, attributes)
        for kind, tokens in (("input", record.input_tokens), ("output", record.output_tokens)):
            self._add("abstractllm.server.tokens", tokens, attributes | {"gen_ai.token.type": kind})
        self._add("abstractllm.server.tokens.cached", record.cached_input_tokens, attributes)
        self._add("abstractllm.server.tokens.reasoning", record.reasoning_tokens, attributes)

    def _record_upstream(self, record: CallRecord, upstream: UpstreamCall) -> None:
        """Records a call to a hosted LLM."""
        attributes: dict[str, Any] = _gen_ai(upstream.provider, upstream.model) | {"abstractllm.llm": upstream.llm}
        if upstream.address:
            attributes["server.address"] = upstream.address
            if upstream.port is not None:
                attributes["server.port"] = upstream.port
        ended_at = record.ended_at if upstream.ended_at is None else upstream.ended_at
        if ended_at is not None:
            error = {"error.type": upstream.error_reason} if upstream.error_reason else {}
            self._record("gen_ai.client.operation.duration", ended_at - upstream.began_at, attributes | error)
        if upstream.first_event_at is not None and not upstream.error_reason:
            self._record(
                "gen_ai.client.operation.time_to_first_chunk", upstream.first_event_at - upstream.began_at, attributes
            )
        if upstream.usage is not None:
            usage = upstream.usage
            for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                self._record("gen_ai.client.token.usage", tokens, attributes | {"gen_ai.token.type": kind})

    def _record(self, name: str, value: float | None, attributes: Mapping[str, Any]) -> None:
        if value is not None:
            self._histograms[name].record(max(0.0, value), attributes)

    def _add(self, name: str, value: int | None, attributes: Mapping[str, Any]) -> None:
        if value is not None:
            self._counters[name].add(value, attributes)


def _gen_ai(provider: str, model: str) -> dict[str, str]:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider}
    if model:
        attributes["gen_ai.request.model"] = model
    return attributes


def _time_per_output_token(record: CallRecord) -> float | None:
    if record.output_tokens is None or record.output_tokens < 2 or record.first_token_at is None:
        return None
    if record.decode is not None:
        return record.decode / (record.output_tokens - 1)
    ended_at = record.ended_at
    return None if ended_at is None else (ended_at - record.first_token_at) / (record.output_tokens - 1)
