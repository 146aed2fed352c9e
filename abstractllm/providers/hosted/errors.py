"""From HTTP statuses and transport failures to the library's errors; the same for every hosted provider."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContextLengthExceededError,
    IncompleteStreamError,
    ProviderProtocolError,
    ProviderUnavailableError,
    UpstreamRejectedError,
    cause_chain,
)
from abstractllm.providers.hosted.error_reports import ErrorReport
from abstractllm.providers.hosted.refusals import Refusal, classify, token_numbers
from abstractllm.validation import replace_surrogates

__all__ = [
    "as_unicode",
    "retry_after",
    "scrub",
    "status_error",
    "transport_error",
    "unknown_finish_reason",
    "upstream_error",
]

MAX_MESSAGE = 1000
"""Characters that are kept of an upstream message."""
SHORT_SECRET, LONG_SECRET = 8, 20
"""Characters from which on a key is taken for a secret: one that holds more than words, and any."""

_TRANSPORT: tuple[tuple[str, type[AbstractLLMError], str], ...] = (
    ("ConnectTimeout", ProviderUnavailableError, "connecting took too long"),
    ("TimeoutException", ProviderUnavailableError, "nothing came for too long"),
    ("UnsupportedProtocol", ConfigurationError, "base_url is not an http or https address"),
    ("InvalidURL", ConfigurationError, "base_url is not a valid address"),
    ("LocalProtocolError", ConfigurationError, "the request holds what HTTP cannot carry"),
    ("ProxyError", ProviderUnavailableError, "the proxy failed"),
    ("ConnectError", ProviderUnavailableError, "cannot connect"),
    ("DecodingError", ProviderProtocolError, "the answer cannot be decoded"),
    ("TooManyRedirects", ConfigurationError, "base_url redirects without end"),
    ("TransportError", ProviderUnavailableError, "the connection broke off"),
    ("StreamError", ProviderUnavailableError, "the connection was closed"),
)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that `retry-after-ms` or `Retry-After` (seconds, or a date) asks to wait; else None."""
    if re.fullmatch(r"\d{1,9}(\.\d*)?", milliseconds := headers.get("retry-after-ms", "").strip()):
        return float(milliseconds) / 1000
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,6}(\.\d*)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def status_error(
    status: int,
    message: str,
    headers: Mapping[str, str],
    *,
    kind: type[AbstractLLMError] | None = None,
    request_id: str | None = None,
    **facts: Any,
) -> AbstractLLMError:
    """Makes the error for an HTTP status that is not 2xx.

    Args:
        status: The status.
        message: The provider's message; it is shortened.
        headers: The answer's headers.
        kind: The error's class, where the provider's own error code tells more than the status and the message.
        request_id: The provider's id of the request; it is put into the message, for the provider's support.
        **facts: Further attributes of the error.
    """
    report = ErrorReport(message, is_structured=True)
    return _refusal_error(report, status, headers, f"HTTP {status}", request_id, kind=kind, facts=facts)


def upstream_error(
    report: ErrorReport,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    source: str = "",
    request_id: str | None = None,
    fields: Mapping[str, str] | None = None,
    kind: type[AbstractLLMError] | None = None,
    **facts: Any,
) -> AbstractLLMError:
    """Makes the error for one that an API reports: by its codes, its words and its status, in this order.

    Args:
        report: What it says, from `read_report`.
        status: The HTTP status that is not 2xx; None for an error within an answer.
        headers: The answer's headers.
        source: The answer that it came in, for the message, such as `HTTP 200, text/event-stream`.
        request_id: The provider's id of the request; it is put into the message, for the provider's support.
        fields: The library's names of the API's fields.
        kind: The error's class, where the provider knows more than the tables.
        **facts: Further attributes of the error.
    """
    if report.parameter and "field" not in facts:
        name = re.split(r"[.\[]", report.parameter)[0]
        facts["field"] = (fields or {}).get(name, report.parameter)
    source = source or (f"HTTP {status}" if status is not None else "in the answer")
    return _refusal_error(report, status, headers or {}, source, request_id, kind=kind, facts=facts)


def _refusal_error(
    report: ErrorReport,
    status: int | None,
    headers: Mapping[str, str],
    source: str,
    request_id: str | None,
    *,
    kind: type[AbstractLLMError] | None,
    facts: dict[str, Any],
) -> AbstractLLMError:
    message = report.message.strip()[:MAX_MESSAGE]
    if kind is None and status is not None and 300 <= status < 400:
        kind, facts = ConfigurationError, {"field": "base_url"} | facts
        message = f"base_url redirects to {headers.get('location', 'nowhere')[:200]}; {message}".rstrip("; ")
    refusal = classify(status, report) if kind is None else Refusal(kind)
    kind = refusal.kind
    if refusal.field is not None:
        facts["field"] = refusal.field
    if refusal.field == "base_url":
        message = f"base_url has no such API: {message}".rstrip(": ")
    if kind in (ContextLengthExceededError, UpstreamRejectedError):
        requested, limit = report.numbers if report.numbers != (None, None) else token_numbers(report.message)
        facts = {"requested": requested, "limit": limit} | facts
    text = f"{message or 'no message'} ({source}"
    text += f", request {request_id[:100]})" if request_id else ")"
    wait = None
    if kind.retryable:
        wait = retry_after(headers)
        wait = _wait_in_words(report) if wait is None else wait
    facts = {"upstream_status": report.status if status is None else status} | facts
    return kind(text, retry_after=wait, **facts)


def _wait_in_words(report: ErrorReport) -> float | None:
    """Returns the seconds to wait that the body names, where no header does."""
    pattern = r"(?:retry after|try again in|retry in|please wait) (?:(\d{1,4})m)?(\d{1,6}(?:\.\d{1,9})?) ?(ms|s)"
    if report.retry_after is None and (match := re.search(pattern, report.message, re.I)):
        return int(match[1] or 0) * 60 + float(match[2]) / (1000 if match[3].lower() == "ms" else 1)
    return report.retry_after


def transport_error(error: BaseException) -> AbstractLLMError | None:
    """Makes the error for a failure of `httpx`, `httpx2` or the socket.

    Args:
        error: The failure, or an error that was raised from it.

    Returns:
        The error; None if there is no such failure.
    """
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    for link in cause_chain(error):
        if "CERTIFICATE_VERIFY_FAILED" in (words := str(link)):
            return ConfigurationError(
                "the server's certificate is not trusted; SSL_CERT_FILE may name a file with those that are: "
                f"{words[:MAX_MESSAGE]}",
                field="base_url",
            )
        if type(link).__name__ == "ProxyError" and "407" in words:
            return ConfigurationError(
                "the proxy asks for a user and a password, or refuses them: they stand in HTTPS_PROXY, HTTP_PROXY or "
                "ALL_PROXY",
                field="HTTPS_PROXY",
            )
        for name, kind, summary in _TRANSPORT:
            if any(isinstance(link, getattr(library, name)) for library in libraries):
                # A protocol error's own words may repeat a header, and with it the key.
                detail = "" if name == "LocalProtocolError" else str(link).strip()[:MAX_MESSAGE]
                field = "base_url" if kind is ConfigurationError else None
                return kind(f"{summary}: {detail}" if detail else summary, field=field)
    for link in cause_chain(error):
        if isinstance(link, OSError):
            return ProviderUnavailableError(f"the connection failed: {str(link)[:MAX_MESSAGE]}")
    return None


def unknown_finish_reason(reason: str, source: str = "") -> IncompleteStreamError:
    """Makes the error for an answer that ended for a reason that this version does not know.

    Such an answer may or may not be whole, so it must not pass for a whole one; its text is on the error.

    Args:
        reason: The provider's word.
        source: The answer that it came in, for the message.
    """
    where = f" ({source})" if source else ""
    return IncompleteStreamError(f"the answer ended with the unknown finish reason {reason[:80]!r}{where}")


def as_unicode(error: AbstractLLMError) -> None:
    """Replaces surrogates in an error's message, which a provider wrote."""
    error.message = replace_surrogates(error.message)
    error.field = error.field and replace_surrogates(error.field)
    error.args = (error.message,)


def scrub(error: BaseException, secrets: Iterable[str]) -> None:
    """Removes secrets from an error and its causes, since a provider may repeat a key in its message.

    A key that is an ordinary word, as local servers are given (`none`, `model`, `lm-studio`), is no secret: to remove
    it would spoil the words, and the field, of every error.
    """
    for secret in filter(_is_secret, secrets):
        for link in cause_chain(error):
            link.args = _without(link.args, secret)
            for name, value in list(vars(link).items()):
                if isinstance(value, str | dict | list):
                    setattr(link, name, _without(value, secret))


def _is_secret(key: str) -> bool:
    """Tells whether a key is long enough, and not made of words alone."""
    if len(key) >= LONG_SECRET:
        return True
    return len(key) >= SHORT_SECRET and not re.fullmatch(r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[-_.][A-Za-z]?[a-z]*)*", key)


def _without(value: Any, secret: str) -> Any:
    match value:
        case str():
            return value.replace(secret, "**********")
        case dict():
            return {_without(key, secret): _without(item, secret) for key, item in value.items()}
        case list():
            return [_without(item, secret) for item in value]
        case tuple():
            return tuple(_without(item, secret) for item in value)
    return value
