"""The tables of what an upstream's refusal means: by its codes, its words and its status, in this order.

Vendors agree neither on statuses nor on words, and gateways pass on the words of the servers behind them: so there is
one table for all providers. What it knows is from the vendors' documentation, which the cases of `refusals_*.yaml` in
`tests/cases/hosted/` follow vendor by vendor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContentBlockedError,
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    UpstreamRejectedError,
)
from abstractllm.providers.hosted.error_reports import ErrorReport
from abstractllm.providers.hosted.refusal_words import IN_STREAM, WORDS

__all__ = ["Refusal", "classify", "token_numbers"]

Kind = type[AbstractLLMError]


def _plain(code: str) -> str:
    """Returns a code as the tables have it: `ModelNotFound`, `MODEL_NOT_FOUND` and `model-not-found` are the same."""
    return re.sub(r"[^a-z0-9]", "", code.lower())


def _table(codes: dict[Kind, str]) -> dict[str, Kind]:
    return {_plain(code): kind for kind, line in codes.items() for code in line.split()}


_CODES = _table(
    {
        ModelNotFoundError: """
            model_not_found model_not_available model_not_supported model_not_exist model_decommissioned
            model_deprecated model_permission_blocked_org model_permission_blocked_project invalid_model unknown_model
            no_access DeploymentNotFound key_model_access_denied team_model_access_denied user_model_access_denied
            org_model_access_denied project_model_access_denied""",
        ProviderCredentialsError: """
            invalid_api_key API_KEY_INVALID invalid_authentication_error expired_key token_not_found_in_db
            organization_restricted UnrecognizedClientException""",
        ContextLengthExceededError: """
            context_length_exceeded context_window_exceeded exceed_context_size_error ContextWindowExceededError
            tokens_limit_reached token_limit_exceeded model_context_window_exceeded model_max_prompt_tokens_exceeded""",
        ContentBlockedError: """
            content_filter content_filter_policy content_policy_violation ContentPolicyViolationError
            ResponsibleAIPolicyViolation moderation_blocked invalid_prompt data_inspection_failed""",
        QuotaExceededError: """
            insufficient_quota insufficient_balance insufficient_credits billing_hard_limit_reached billing_not_active
            blocked_api_access budget_exceeded exceeded_current_quota_error enforced_spend_limit_reached Arrearage
            AllocationQuota.FreeTierOnly ServiceQuotaExceededException""",
        RateLimitedError: "rate_limit_exceeded rate_limit_reached_error RateLimitReached ThrottlingException",
        OverloadedError: """
            engine_overloaded_error queue_exceeded capacity_exceeded service_tier_capacity_exceeded
            ModelNotReadyException""",
        UnsupportedParameterError: "unsupported_parameter unsupported_value UnsupportedParamsError",
        UnsupportedFeatureError: "not_supported_error",
        # A provider's own reasons.
        UpstreamRejectedError: """
            unsupported_country_region_territory model_terms_required json_validate_failed tool_use_failed""",
        # The address.
        ConfigurationError: "unknown_url",
    }
)
"""Codes and types that tell more than a status does."""

_TYPES = _table(
    {
        ProviderCredentialsError: "auth_error authentication_error permission_error PERMISSION_DENIED UNAUTHENTICATED",
        ModelNotFoundError: "not_found_error NOT_FOUND NotFoundError",
        QuotaExceededError: "billing_error",
        UpstreamRejectedError: "request_too_large",
        RateLimitedError: "rate_limit_error RESOURCE_EXHAUSTED",
        OverloadedError: "overloaded overloaded_error",
        InvalidRequestError: "invalid_request_error BadRequestError INVALID_ARGUMENT",
        ProviderUnavailableError: """
            api_error server_error internal_error InternalServerError timeout_error conflict_error unavailable
            unavailable_error""",
    }
)
"""Types that name what a status names, too: they decide within an answer, where there is none, and at the statuses that
servers use for everything. From 401 to 429 the status tells more."""
_TELLING = (ProviderCredentialsError, ModelNotFoundError, QuotaExceededError, RateLimitedError, OverloadedError)
"""The types' classes that are believed at the statuses 400, 422 and from 500 on."""

_STATUSES: dict[int, Kind] = {
    400: InvalidRequestError,
    401: ProviderCredentialsError,
    402: QuotaExceededError,
    403: ProviderCredentialsError,
    404: ModelNotFoundError,
    405: ConfigurationError,
    407: ConfigurationError,
    408: ProviderUnavailableError,
    409: ProviderUnavailableError,
    410: ModelNotFoundError,
    422: InvalidRequestError,
    423: ProviderUnavailableError,
    424: ProviderUnavailableError,
    425: ProviderUnavailableError,
    429: RateLimitedError,
    498: OverloadedError,
    499: ProviderUnavailableError,
    501: UnsupportedFeatureError,
    529: OverloadedError,
}
"""Every other status below 500 is a refusal for the provider's own reasons, every other one above it a failure."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The meaning of a refusal."""

    kind: Kind
    field: str | None = None
    """The library's field that it is about, where the tables know."""


def classify(status: int | None, report: ErrorReport) -> Refusal:
    """Returns what an upstream's error means.

    Args:
        status: The HTTP status that is not 2xx; None for an error within an answer.
        report: What the error says.
    """
    effective = status if status is not None else report.status
    if (refusal := _by_code(effective, report)) is not None:
        return refusal
    for words in WORDS:
        if (effective or IN_STREAM) in words.statuses and (match := words.pattern.search(report.message)):
            parameter = match.groupdict().get("parameter")
            return Refusal(words.kind, f"parameters.{parameter.lower()}" if parameter else words.field)
    kinds = [kind for code in report.codes if (kind := _TYPES.get(_plain(code))) is not None]
    if effective is None:
        return Refusal(kinds[-1] if kinds else ProviderUnavailableError)
    if effective in (400, 422) or effective >= 500:
        kinds = [
            kind for kind in kinds if kind in (_TELLING if effective < 500 else (RateLimitedError, OverloadedError))
        ]
        if kinds:
            return Refusal(kinds[-1])
    return _by_status(effective, report)


def _by_code(status: int | None, report: ErrorReport) -> Refusal | None:
    # The innermost code is that of the server which refused.
    for code in reversed(report.codes):
        kind = _CODES.get(_plain(code))
        if kind is None:
            continue
        if kind is ContextLengthExceededError and status is not None and status not in (400, 413, 422, 500):
            continue
        if kind is RateLimitedError and status == 413:
            # More tokens in one request than a minute allows: waiting does not help.
            return Refusal(UpstreamRejectedError)
        if kind is QuotaExceededError and report.retry_after is not None:
            return Refusal(RateLimitedError)
        if status == 429 and kind not in (QuotaExceededError, RateLimitedError, OverloadedError):
            continue
        if kind is UnsupportedParameterError and "organization must be verified" in report.message:
            continue
        return Refusal(kind, "base_url" if kind is ConfigurationError else None)
    if any("perday" in code.lower() for code in report.codes):
        return Refusal(QuotaExceededError)
    if status == 429 and report.retry_after is not None:
        # Google words every rate limit as a quota, but says when to come again.
        return Refusal(RateLimitedError)
    return None


def _by_status(status: int, report: ErrorReport) -> Refusal:
    if status == 404 and not report.is_structured:
        # A server without this API answers with a page.
        return Refusal(ConfigurationError, "base_url")
    if status == 405:
        return Refusal(ConfigurationError, "base_url")
    if (kind := _STATUSES.get(status)) is not None:
        return Refusal(kind)
    return Refusal(UpstreamRejectedError if status < 500 else ProviderUnavailableError)


_NUMBER = r"(\d[\d,]*)"
_SUMS = (
    rf"exceed context limit: {_NUMBER} \+ {_NUMBER} > {_NUMBER}",
    rf"must be <= {_NUMBER}\. given: {_NUMBER} `inputs` tokens and {_NUMBER}",
)
_LIMITS = (
    rf"> {_NUMBER}",
    rf"(?:maximum|max|model) (?:allowed )?(?:context|model|prompt|input|sequence)(?: input)? (?:length|size|limit)"
    rf"(?: (?:is|of)|:)? \(?{_NUMBER}",
    rf"model's (?:maximum )?context length \(?{_NUMBER}",
    rf"context (?:size|length|window)(?: (?:is|of)(?: only)?)? \(?{_NUMBER}",
    rf"model with {_NUMBER} maximum context length",
    rf"maximum allowed (?:input )?length (?:of )?\(?{_NUMBER}",
    rf"number of tokens allowed \({_NUMBER}",
    rf"(?:token|configured) limit(?: of|:) {_NUMBER}",
    rf"exceeds the limit of {_NUMBER}",
    rf"while limit is {_NUMBER}",
    rf"only supports up to {_NUMBER}",
    rf"cannot exceed {_NUMBER}",
    rf"must have less than {_NUMBER}",
    rf"max size: {_NUMBER}",
    rf"should be \[\d+, ?{_NUMBER}",
    rf"\blimit {_NUMBER}",
)
_REQUESTS = (
    rf"too long: {_NUMBER}(?: tokens >|,)",
    rf"(?:resulted in|\brequested|request \(|contains (?:at least )?|prompt has|- received)"
    rf"(?: a total of)?(?: about)?:? ?\(?{_NUMBER}",
    rf"(?:input|prompt|count|length)(?: length)?(?: of)? \(?(?:length )?{_NUMBER}(?: tokens)?\)? (?:is longer|exceeds)",
    rf"given: {_NUMBER}",
    rf"length is {_NUMBER} while",
    rf"keep the first {_NUMBER}",
    rf"initial prompt \({_NUMBER}",
    rf"requested tokens \({_NUMBER}",
    rf"token count is {_NUMBER}",
)


def token_numbers(message: str) -> tuple[int | None, int | None]:
    """Returns the tokens that were requested, and the limit, as far as an upstream's words tell them."""
    for pattern in _SUMS:
        if match := re.search(pattern, message, re.I):
            first, second, third = (int(number.replace(",", "")) for number in match.groups())
            return (first + second, third) if "limit:" in pattern else (second + third, first)
    return _number(_REQUESTS, message), _number(_LIMITS, message)


def _number(patterns: tuple[str, ...], message: str) -> int | None:
    for pattern in patterns:
        if match := re.search(pattern, message, re.I):
            return int(match[1].replace(",", "")[:18])
    return None
