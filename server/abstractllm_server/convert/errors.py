"""The one table from errors to gRPC statuses: handlers raise errors and contain no `try`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from abstractllm.errors import AbstractLLMError, ErrorReason
from abstractllm.validation import replace_surrogates

__all__ = ["DOMAIN", "Status", "status_of"]

DOMAIN = "abstractllm"
_DEFAULT_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 86_400.0

# Details travel in the trailers, which gRPC refuses beyond about 8 KiB.
_MAX_MESSAGE_BYTES = 800
_MAX_VALUE_BYTES = 256

_CODES = {
    ErrorReason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.UNSUPPORTED_PARAMETER: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.CONTEXT_LENGTH_EXCEEDED: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.MESSAGE_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.UNSUPPORTED_FEATURE: grpc.StatusCode.UNIMPLEMENTED,
    ErrorReason.UNKNOWN_LLM: grpc.StatusCode.NOT_FOUND,
    ErrorReason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorReason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorReason.PROVIDER_CREDENTIALS: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.NOT_CONFIGURED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.MODEL_LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.MODEL_IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.CONTENT_BLOCKED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.PROVIDER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.PROVIDER_PROTOCOL: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.INCOMPLETE_STREAM: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.ENGINE_CRASHED: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorReason.CANCELLED: grpc.StatusCode.CANCELLED,
    ErrorReason.STALE_CONFIG: grpc.StatusCode.ABORTED,
    ErrorReason.INTERNAL: grpc.StatusCode.INTERNAL,
    ErrorReason.UPSTREAM_REJECTED: grpc.StatusCode.FAILED_PRECONDITION,
}

_METADATA = (
    "request_id",
    "llm",
    "provider",
    "model",
    "upstream_status",
    "field",
    "limit",
    "requested",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class Status:
    """The status that a failed call ends with."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def status_of(error: AbstractLLMError) -> Status:
    """Turns an error into a status with exactly one ErrorInfo, and BadRequest and RetryInfo where they apply."""
    code = _CODES[error.reason]
    message = _cut(error.message, _MAX_MESSAGE_BYTES)
    if error.reason is ErrorReason.INTERNAL:
        message = f"internal error; the server's log tells more under request id {error.request_id or 'unknown'}"
    metadata = {
        name: _cut(str(value), _MAX_VALUE_BYTES) for name in _METADATA if (value := getattr(error, name)) is not None
    }
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.field is not None and code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        violation = error_details_pb2.BadRequest.FieldViolation(field=metadata["field"], description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    trailers: list[tuple[str, str | bytes]] = []
    seconds = _retry_seconds(error.retry_after)
    if error.retryable:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.retryable and not error.is_billed:
        trailers.append(("grpc-retry-pushback-ms", str(int(seconds * 1000))))
    elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        # The clients' retry policy sees codes only: this tells it that a retry would not help.
        trailers.append(("grpc-retry-pushback-ms", "-1"))
    status = status_pb2.Status(code=code.value[0], message=message, details=[_packed(detail) for detail in details])
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    return Status(code, message, tuple(trailers))


def _retry_seconds(retry_after: float | None) -> float:
    """Returns a delay that can be sent, whatever a provider's header said."""
    if retry_after is None or math.isnan(retry_after):
        return _DEFAULT_RETRY_SECONDS
    return min(max(retry_after, 0.0), _LONGEST_RETRY_SECONDS)


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, limit: int) -> str:
    """Shortens a text to `limit` bytes of UTF-8 and replaces the surrogates, which UTF-8 cannot carry."""
    data = replace_surrogates(text).encode()
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "..."
