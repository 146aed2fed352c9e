"""Every failure is one of these classes, each with one `reason` that a program can branch on.

The classes, reasons and their gRPC status codes are one table, shared by the library, the server and the clients in
every language: see `docs/errors.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from abstractllm.types import Attempt

__all__ = [
    "AbstractLLMError",
    "AuthenticationError",
    "ConfigurationError",
    "ContentBlockedError",
    "ContextLengthExceededError",
    "EngineCrashedError",
    "ErrorReason",
    "GenerationCancelledError",
    "GenerationTimeoutError",
    "IncompleteStreamError",
    "InternalError",
    "InvalidRequestError",
    "ModelInUseError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProviderCredentialsError",
    "ProviderProtocolError",
    "ProviderUnavailableError",
    "QuotaExceededError",
    "RateLimitedError",
    "ServerShuttingDownError",
    "StaleConfigError",
    "UnknownLLMError",
    "UnknownProviderError",
    "UnsupportedFeatureError",
    "UnsupportedParameterError",
    "UpstreamRejectedError",
]


class ErrorReason(StrEnum):
    """The kinds of failure; the values are the names of the contract's `ErrorReason` without their prefix."""

    INVALID_REQUEST = "INVALID_REQUEST"
    UNSUPPORTED_PARAMETER = "UNSUPPORTED_PARAMETER"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    UNSUPPORTED_FEATURE = "UNSUPPORTED_FEATURE"
    UNKNOWN_LLM = "UNKNOWN_LLM"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    NOT_ALLOWED = "NOT_ALLOWED"
    PROVIDER_CREDENTIALS = "PROVIDER_CREDENTIALS"
    NOT_CONFIGURED = "NOT_CONFIGURED"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    MODEL_IN_USE = "MODEL_IN_USE"
    CONTENT_BLOCKED = "CONTENT_BLOCKED"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PROVIDER_PROTOCOL = "PROVIDER_PROTOCOL"
    INCOMPLETE_STREAM = "INCOMPLETE_STREAM"
    ENGINE_CRASHED = "ENGINE_CRASHED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    STALE_CONFIG = "STALE_CONFIG"
    INTERNAL = "INTERNAL"
    UPSTREAM_REJECTED = "UPSTREAM_REJECTED"


class AbstractLLMError(Exception):
    """The root of all errors of this package.

    Attributes:
        message: The failure in words, for a person.
        reason: The kind of failure, for a program.
        retryable: True if the same request may succeed later, unchanged.
        is_billed: True if the provider has answered, so that every further attempt would be billed like this one. Then
            nothing here repeats it by itself, whether or not it is retryable.
        is_turned_away: True if the LLM's own limits refused the request, which then was sent nowhere. Only the caller
            repeats it, after `retry_after`, and it tells nothing of whether the LLM is well.
        retry_after: Seconds to wait before a retry, where known.
        provider: The provider that failed.
        llm: The name of the LLM that was asked.
        model: The model that was asked.
        upstream_status: The hosted provider's HTTP status.
        request_id: The request's id, to find it in the logs.
        field: The path of the field that is wrong, such as `parameters.temperature`.
        limit: The values that the field may have.
        requested: The value that it had.
        output_tokens: Tokens that were generated before the failure.
        partial_text: The text that came before the failure.
        attempts: Every LLM that failed for a fallback, oldest first; over the network the message names them.
    """

    default_reason: ClassVar[ErrorReason] = ErrorReason.INTERNAL
    retryable: ClassVar[bool] = False
    is_billed: bool = False
    is_turned_away: bool = False
    attempts: tuple[Attempt, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        reason: ErrorReason | None = None,
        retry_after: float | None = None,
        provider: str | None = None,
        llm: str | None = None,
        model: str | None = None,
        upstream_status: int | None = None,
        request_id: str | None = None,
        field: str | None = None,
        limit: object = None,
        requested: object = None,
        output_tokens: int | None = None,
        partial_text: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_after = retry_after
        self.provider = provider
        self.llm = llm
        self.model = model
        self.upstream_status = upstream_status
        self.request_id = request_id
        self.field = field
        self.limit = limit
        self.requested = requested
        self.output_tokens = output_tokens
        self.partial_text = partial_text

    def fill(self, **facts: Any) -> None:
        """Sets the attributes named in `facts` that are not yet known."""
        for name, value in facts.items():
            if getattr(self, name) is None:
                setattr(self, name, value)


class InvalidRequestError(AbstractLLMError):
    """The request is malformed: `field` names the fault's place, `limit` and `requested` explain it."""

    default_reason = ErrorReason.INVALID_REQUEST


class UnsupportedParameterError(AbstractLLMError):
    """The LLM does not take this parameter or provider option."""

    default_reason = ErrorReason.UNSUPPORTED_PARAMETER


class ContextLengthExceededError(AbstractLLMError):
    """Prompt and answer do not fit the model's context window: `requested` tokens against `limit`."""

    default_reason = ErrorReason.CONTEXT_LENGTH_EXCEEDED


class UnsupportedFeatureError(AbstractLLMError):
    """The LLM, or the server, cannot do this kind of request."""

    default_reason = ErrorReason.UNSUPPORTED_FEATURE


class UnknownLLMError(AbstractLLMError):
    """No LLM of this name is configured."""

    default_reason = ErrorReason.UNKNOWN_LLM


class ModelNotFoundError(AbstractLLMError):
    """The provider, the hub or the cache has no such model."""

    default_reason = ErrorReason.MODEL_NOT_FOUND


class AuthenticationError(AbstractLLMError):
    """The caller did not prove their identity."""

    default_reason = ErrorReason.UNAUTHENTICATED


class PermissionDeniedError(AbstractLLMError):
    """The caller's role does not allow this."""

    default_reason = ErrorReason.NOT_ALLOWED


class ProviderCredentialsError(AbstractLLMError, ValueError):
    """The provider's key is missing or refused."""

    default_reason = ErrorReason.PROVIDER_CREDENTIALS


class ConfigurationError(AbstractLLMError, ValueError):
    """The configuration is wrong or incomplete."""

    default_reason = ErrorReason.NOT_CONFIGURED


class UnknownProviderError(ConfigurationError):
    """No provider of this name is installed."""


class ModelLoadError(AbstractLLMError):
    """A local model cannot be loaded."""

    default_reason = ErrorReason.MODEL_LOAD_FAILED


class ModelInUseError(AbstractLLMError):
    """A model cannot be removed or unloaded while it is used."""

    default_reason = ErrorReason.MODEL_IN_USE


class ContentBlockedError(AbstractLLMError):
    """The provider refuses the request's content."""

    default_reason = ErrorReason.CONTENT_BLOCKED


class RateLimitedError(AbstractLLMError):
    """The provider asks to slow down, or the caller has used up what they may."""

    default_reason = ErrorReason.RATE_LIMITED
    retryable = True


class OverloadedError(AbstractLLMError):
    """Too many requests wait already, or the request cannot meet its deadline at the present rate."""

    default_reason = ErrorReason.OVERLOADED
    retryable = True


class QuotaExceededError(AbstractLLMError):
    """The account's quota at the provider is used up."""

    default_reason = ErrorReason.QUOTA_EXCEEDED


class ProviderUnavailableError(AbstractLLMError):
    """The provider cannot be reached, or failed by itself."""

    default_reason = ErrorReason.PROVIDER_UNAVAILABLE
    retryable = True


class ProviderProtocolError(AbstractLLMError):
    """The provider's answer cannot be understood."""

    default_reason = ErrorReason.PROVIDER_PROTOCOL
    retryable = True


class IncompleteStreamError(AbstractLLMError):
    """The answer broke off; `partial_text` holds its beginning. Whether to ask again is the caller's choice."""

    default_reason = ErrorReason.INCOMPLETE_STREAM


class EngineCrashedError(AbstractLLMError):
    """The local engine's process ended; it is started again by itself."""

    default_reason = ErrorReason.ENGINE_CRASHED
    retryable = True


class ServerShuttingDownError(AbstractLLMError):
    """The server, or the LLM, is closing; ask another one."""

    default_reason = ErrorReason.SHUTTING_DOWN
    retryable = True


class GenerationTimeoutError(AbstractLLMError):
    """The deadline passed."""

    default_reason = ErrorReason.TIMEOUT


class GenerationCancelledError(AbstractLLMError):
    """The caller, or an operator, cancelled the request."""

    default_reason = ErrorReason.CANCELLED


class StaleConfigError(AbstractLLMError):
    """The configuration changed since it was read; read it again."""

    default_reason = ErrorReason.STALE_CONFIG


class InternalError(AbstractLLMError):
    """A fault of this software; the full text is in the log, under the request's id."""

    default_reason = ErrorReason.INTERNAL


class UpstreamRejectedError(AbstractLLMError):
    """A hosted provider refused, for reasons of its own, what our checks accept; another provider may answer."""

    default_reason = ErrorReason.UPSTREAM_REJECTED


_CLASSES: dict[str, type[AbstractLLMError]] = {
    str(kind.default_reason): kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, AbstractLLMError) and "default_reason" in vars(kind)
} | {"MESSAGE_TOO_LARGE": InvalidRequestError}


def error_class(reason: str) -> type[AbstractLLMError]:
    """Returns the class of the errors that have a reason; `InternalError` for a reason that is not known.

    Example:
        raise error_class("RATE_LIMITED")("the provider asks to slow down", retry_after=2)
    """
    return _CLASSES.get(reason, InternalError)


def cause_chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the errors that it was raised from, or while handling, the latest first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
