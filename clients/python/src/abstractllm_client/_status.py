"""A call's gRPC status -> one of the client's errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from abstractllm_client import errors
from abstractllm_client.errors import AbstractLLMError, ErrorReason, InvalidRequestError

DOMAIN = "abstractllm"
_DETAILS = "grpc-status-details-bin"
_TOO_LARGE = re.compile(r"larger than max(?: \((\d+) vs\. (\d+)\))?")
"""The text with which gRPC refuses a message beyond a limit, on either side: its size and the limit."""

_BY_REASON: dict[str, type[AbstractLLMError]] = {
    str(kind.default_reason): kind
    for name in errors.__all__
    if isinstance(kind := getattr(errors, name), type)
    and issubclass(kind, AbstractLLMError)
    and kind is not AbstractLLMError
} | {"MESSAGE_TOO_LARGE": InvalidRequestError}

# For a status without an ErrorInfo (from gRPC itself, or a proxy), or with a reason that is not known here.
_BY_CODE: dict[grpc.StatusCode, type[AbstractLLMError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.UnknownLLMError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnsupportedFeatureError,
    grpc.StatusCode.UNAUTHENTICATED: errors.AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.ConfigurationError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.UNAVAILABLE: errors.ProviderUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.GenerationTimeoutError,
    grpc.StatusCode.CANCELLED: errors.GenerationCancelledError,
    grpc.StatusCode.ABORTED: errors.StaleConfigError,
}


def error_from(
    code: grpc.StatusCode | None,
    message: str | None,
    trailers: Iterable[tuple[str, str | bytes]] | None,
    partial_text: str = "",
) -> AbstractLLMError:
    """Rebuilds the error that the server raised.

    Args:
        code: The status code.
        message: The status message.
        trailers: The call's trailing metadata.
        partial_text: The answer's text that came before.

    Returns:
        The error of the ErrorInfo's reason; without one, an error of the code, retryable only if UNAVAILABLE.
    """
    code = code or grpc.StatusCode.UNKNOWN
    message = message or code.name
    info, facts = _details(trailers)
    facts["partial_text"] = partial_text
    if info is None:
        error = _bare(code, message, facts)
        error.retryable = code is grpc.StatusCode.UNAVAILABLE
        return error
    kind = _BY_REASON.get(info.reason)
    if kind is not None:
        return kind(message, reason=ErrorReason(info.reason), **facts)
    error = _BY_CODE.get(code, errors.InternalError)(message, reason=info.reason or None, **facts)
    error.retryable = error.retry_after is not None or code is grpc.StatusCode.UNAVAILABLE
    return error


def _bare(code: grpc.StatusCode, message: str, facts: dict[str, Any]) -> AbstractLLMError:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (sizes := _TOO_LARGE.search(message)):
        if sizes[1]:
            facts |= {"requested": int(sizes[1]), "limit": int(sizes[2])}
        return InvalidRequestError(message, reason=ErrorReason.MESSAGE_TOO_LARGE, **facts)
    return _BY_CODE.get(code, errors.InternalError)(message, **facts)


def _details(
    trailers: Iterable[tuple[str, str | bytes]] | None,
) -> tuple[error_details_pb2.ErrorInfo | None, dict[str, Any]]:
    """Reads the google.rpc details: the ErrorInfo of our domain, and the facts for an error's attributes."""
    info: error_details_pb2.ErrorInfo | None = None
    facts: dict[str, Any] = {}
    for detail in _unpack(trailers):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            if detail.domain == DOMAIN:
                info = detail
        elif isinstance(detail, error_details_pb2.RetryInfo):
            facts["retry_after"] = detail.retry_delay.ToNanoseconds() / 1e9
        elif detail.field_violations:
            facts["field"] = detail.field_violations[0].field
    if info is not None:
        for name in ("request_id", "llm", "provider", "model", "field"):
            if value := info.metadata.get(name):
                facts[name] = value
        for name in ("upstream_status", "output_tokens"):
            if (value := info.metadata.get(name, "")).isdecimal():
                facts[name] = int(value)
        for name in ("limit", "requested"):
            if value := info.metadata.get(name):
                facts[name] = int(value) if value.isdecimal() else value
    return info, facts


def _unpack(
    trailers: Iterable[tuple[str, str | bytes]] | None,
) -> Iterable[error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest]:
    encoded = next((value for key, value in trailers or () if key == _DETAILS), b"")
    try:
        status = status_pb2.Status.FromString(encoded if isinstance(encoded, bytes) else encoded.encode())
        for packed in status.details:
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.RetryInfo,
                error_details_pb2.BadRequest,
            ):
                detail = kind()
                if packed.Unpack(detail):
                    yield detail
    except DecodeError:
        return  # a broken detail says nothing; the status code still does
