"""The words by which upstreams tell what a refusal is about, and the statuses at which the words are believed.

Each line is a vendor's wording, made a little wider; a word alone that a caller's own text could hold is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from abstractllm.errors import (
    AbstractLLMError,
    ConfigurationError,
    ContentBlockedError,
    ContextLengthExceededError,
    ModelNotFoundError,
    OverloadedError,
    ProviderCredentialsError,
    QuotaExceededError,
    RateLimitedError,
    UnsupportedFeatureError,
    UnsupportedParameterError,
    UpstreamRejectedError,
)
from abstractllm.parameters import GENERATION_PARAMETERS

__all__ = ["IN_STREAM", "WORDS", "Words"]

IN_STREAM = 200
"""The status of an error within an answer, which names none itself."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words for one kind of refusal."""

    kind: type[AbstractLLMError]
    statuses: tuple[int, ...]
    pattern: re.Pattern[str]
    field: str | None = None
    """The library's field that they are about."""


def _words(kind: type[AbstractLLMError], statuses: str, patterns: str, field: str | None = None) -> Words:
    """Makes the words of one kind.

    Args:
        kind: The error's class.
        statuses: The statuses, with spaces between them.
        patterns: Regular expressions, one a line, in which a space stands for itself.
        field: The library's field that they are about.
    """
    lines = [line.strip() for line in patterns.strip().splitlines()]
    return Words(kind, tuple(map(int, statuses.split())), re.compile("|".join(lines), re.I), field)


_PARAMETERS = tuple(name for name in GENERATION_PARAMETERS if name not in ("model", "max_tokens"))
"""The generation parameters that have the same name in every API; of a model, other words tell more."""
WORDS = (
    # The API's server says itself that the address is wrong.
    _words(
        ConfigurationError,
        "200 404 405",
        r"""
        \binvalid url\b
        unknown request url
        unexpected endpoint or method
        no route matched
        ^(?:file|resource|page|route)? ?not found\.?$
        ^404 page not found$
        ^cannot post\b
        """,
        field="base_url",
    ),
    # Another model, or another server, may be able to do it.
    _words(
        UnsupportedFeatureError,
        "200 400 404 422 500 501",
        r"""
        (?:not|n't) support (?:the )?(?:tools?|tool use|tool calls?|tool calling|function calling|functions)\b
        (?:not|n't) support (?:the )?tool_choice
        that support tool use
        tool choice requires --enable-auto-tool-choice
        \btools (?:is|are) not (?:supported|enabled|available)
        \btool_choice\W.{0,30}\bnot supported
        function calling is not (?:enabled|supported)
        """,
        field="tools",
    ),
    _words(
        UnsupportedFeatureError,
        "200 400 404 422 500 501",
        r"""
        (?:not|n't) support (?:image|images|vision|multimodal|multi-modal)\b
        that support image input
        image(?:s| input| inputs|_url) (?:is|are) (?:not|only) supported
        image input modality is not
        at most 0 image
        is not a multimodal model
        unable to process input image
        """,
        field="image",
    ),
    _words(
        UnsupportedFeatureError,
        "200 400 422",
        r"""
        system (?:role|message|messages|prompt|prompts|instruction) (?:is |are )?not (?:supported|enabled|allowed)
        developer instruction is not enabled
        """,
        field="system_prompt",
    ),
    _words(
        UnsupportedFeatureError,
        "200 400 422",
        r"""
        \bresponse_format\b.{0,60} not supported
        (?:not|n't) support .{0,30}(?:response_format|json_schema|json mode|structured outputs?)
        json mode is not (?:enabled|supported)
        response_format\.type' must be
        """,
        field="response_format",
    ),
    _words(
        UnsupportedParameterError,
        "200 400 422",
        r"""
        (?:not|n't) support (?:the )?parameter\b
        \b(?:parameter|argument) \S{1,60} is (?:not supported|unsupported)
        (?P<parameter>PARAMETER)[`'"]? (?:is|are) (?:not supported|unsupported|deprecated|not allowed)
        not allowed to request logprobs
        """.replace("PARAMETER", "|".join(_PARAMETERS)),
    ),
    _words(
        UnsupportedParameterError,
        "200 400 422",
        r"""
        unrecognized request arguments? supplied: [`'"]?(?P<parameter>PARAMETER)\b
        """.replace("PARAMETER", "|".join(_PARAMETERS)),
    ),
    _words(
        UnsupportedParameterError,
        "200 400 422",
        r"""
        ^(?:body\.)?(?P<parameter>PARAMETER): extra inputs are not permitted
        """.replace("PARAMETER", "|".join(_PARAMETERS)),
    ),
    _words(
        UnsupportedParameterError,
        "200 400 422",
        r"""
        (?:not|n't) support (?:the )?(?:\w+ )?(?:thinking|reasoning|effort)\b(?! with\b)
        \b(?:thinking|reasoning|effort) (?:mode |level )?(?:is|are) not supported
        """,
        field="parameters.reasoning_effort",
    ),
    # The account's region, terms and settings.
    _words(
        UpstreamRejectedError,
        "200 400 403 404 451",
        r"""
        (?:country|region|territory|location)\b.{0,40} not (?:supported|allowed|available|permitted)
        not (?:supported|allowed|available|permitted) (?:in|from|for) (?:your|this|the) (?:country|region|location)
        not servable in region
        terms acceptance
        accept (?:the|its|our) (?:terms|license|agreement)
        use case details have not been submitted
        organization must be verified
        unsupported (?:country|countries|region|regions|location|territory)
        \bdata policy\b
        guardrail restrictions
        ^request not allowed\b
        roles must alternate
        no allowed providers
        """,
    ),
    # Money.
    _words(
        QuotaExceededError,
        "200 400 401 402 403 412 429",
        r"""
        insufficient (?:\w+ )?(?:balance|credit|credits|quota|funds)\b
        credit balance is too low
        balance is (?:too low|not enough|insufficient)
        out of credits?\b
        (?:no|any|more) credits\b
        all available credits
        credits? (?:have |has |are |is |been )*(?:exhausted|depleted|expired)
        (?:exceeded|reached) your (?:\w+ ){0,3}(?:quota|credits|(?:api )?usage limits|spend(?:ing)? limit)\b
        check your (?:plan and )?billing
        account is not active
        subscription (?:has |is )?expired
        out of call volume quota
        credit limit (?:reached|exceeded)
        余额不足
        欠费
        spend(?:ing)? (?:limit|cap)\b
        payment (?:is )?(?:required|method|overdue)
        please recharge
        in good standing
        budget has been exceeded
        key limit exceeded
        failure to pay
        inactive subscription
        free (?:tier|quota|trial).{0,40} (?:exhausted|used up|expired)
        """,
    ),
    # The key, at whichever status.
    _words(
        ProviderCredentialsError,
        "200 400 403 404 422",
        r"""
        api[ _-]?key (?:is )?(?:not valid|invalid|expired|not found|missing|incorrect|required|disabled|revoked)
        (?:incorrect|invalid|wrong|expired|missing|revoked|unknown) (?:x-)?api[ _-]?key
        (?:invalid|expired|missing) (?:\w+ )?(?:access|bearer|auth|security|subscription|virtual|server) (?:token|key)
        (?:invalid|missing) (?:authentication|credentials)
        (?:provide|pass|use) (?:an? )?(?:valid )?api[ _-]?key
        authentication (?:fails|failed|error)\b
        security token included in the request is
        organization has been (?:disabled|restricted)
        multiple authentication credentials
        """,
    ),
    # The window.
    _words(
        ContextLengthExceededError,
        "200 400 403 404 413 422 500",
        r"""
        max(?:imum)? (?:allowed )?(?:context|model|prompt|input|sequence)(?: input)? (?:length|size|limit|tokens)
        context[ _](?:length|size|window|limit)
        exceeds? .{0,20}context
        exceed(?:s|ed)? (?:the )?model(?:'s)? token limit
        maximum allowed length
        (?:prompt|input|conversation) (?:length |text )?(?:is |was )?too (?:long|large)\b
        prompt exceeds max
        input (?:token count|tokens|length)\b.{0,40} exceeds?\b
        prompt token count of .{0,30} exceeds
        maximum number of (?:input )?tokens
        number of tokens .{0,40} cannot exceed
        max(?:imum)? message tokens
        (?<!_)(?<!output )(?<!completion )tokens\b.{0,40} exceed(?:s|ed)? (?:the |this )?(?:model(?:'s)? )?(?:limit|max)
        input token count is \d+ but
        tokens must be at least 1, got -
        (?:prompt|input) tokens? (?:is |are )?too (?:long|many)
        token limit exceeded
        too many (?:input )?tokens
        too many total text bytes
        tokens in (?:the |your )?request (?:is |are )?more than max
        `inputs` tokens \+ `max_new_tokens` must be
        `inputs` must have less than
        total length of all messages is too long
        reduce (?:the length of )?(?:the|your) (?:messages|prompt|input|conversation)\b
        range of input length should be
        tokens to keep from the initial prompt
        trying to keep the first \d+ tokens
        longer than the (?:maximum )?(?:model|context)
        current length is \d+ while limit is
        body too large for .{0,80} model
        contextwindowexceedederror
        超长
        """,
    ),
    # Moderation, of a request or of an answer.
    _words(
        ContentBlockedError,
        "200 400 403 422 451 498",
        r"""
        \bflagged\b
        requires moderation
        content (?:management |usage |safety )?(?:policy|filter)
        \b(?:usage|acceptable use) (?:policy|policies|guidelines)
        safety (?:system|filter|check|settings)
        \bsafety_check
        content exists risk
        inappropriate content
        unsafe or sensitive content
        sensitive (?:content|information|words)
        considered high risk
        \bprohibited[ _](?:content|use)
        violat\w+ .{0,60}(?:policy|policies|guidelines)
        blocked by .{0,60}(?:filter|policy)
        deny-listed
        \bblocklist
        \bguardrail
        敏感内容
        contentpolicyviolationerror
        """,
    ),
    # Load.
    _words(
        OverloadedError,
        "200 400 403 429 498 500 502 503 529",
        r"""
        \boverloaded\b
        (?:over|at) (?:its |full )?capacity
        capacity (?:is |has been )?exceeded
        queue (?:is )?full
        (?:server|too) busy
        high (?:traffic|demand|load)\b
        maximum pending
        no (?:free |available )?slots?\b
        """,
    ),
    _words(
        RateLimitedError,
        "200 400 403 503",
        r"""
        \brate[ -]?limit
        too many requests
        requests per (?:minute|second|day)
        \bthrottl(?:ed|ing)\b
        """,
    ),
    # The model: unknown, gone, or not for this account.
    _words(
        ModelNotFoundError,
        "200 400 403 404 410 422 500",
        r"""
        \bmodel:? \S{1,200} (?:was |is |has been |could |does |do )?(?:not (?:be )?found|not exist)
        \bmodel \S{1,200} (?:has been |is |was )(?:deprecated|decommissioned|retired|removed|discontinued|blocked)
        \bmodel \S{1,200} is (?:currently )?(?:not (?:available|deployed|enabled|loaded)|no longer)\b
        \bmodel (?:\S{1,200} )?is not supported(?:\.|$| by any| for (?:your|this) account| with your)
        \bmodel (?:name |id )?(?:was |is |has been |could |does )?(?:not (?:be )?found|not exist|unavailable|disabled)
        \bmodel is (?:currently )?not available
        \bmodel (?:is |has been )+(?:deprecated|decommissioned|retired|unloaded)
        \bmodel is no longer
        not found the model
        no such model
        no model (?:named|called)
        (?:unsupported|not a supported) model\b
        unknown model
        (?:could not|couldn't|cannot|can't|unable to) find (?:the )?model
        unable to access (?:non-serverless )?model
        invalid model(?: name| id)?(?::| '| "| `| passed|$)
        not a valid model
        model identifier is invalid
        \bmodel_not_found\b
        no models? (?:is |are )?loaded
        model unloaded
        failed to load model
        access to (?:the |this )?(?:requested )?model
        (?:allowed|authorized|permission) to (?:access|use|sample from) (?:the |this )?model
        no endpoints found
        deployment for this resource does not exist
        is not found for api version
        with on-demand throughput isn
        marked by provider as legacy
        not found for account
        no healthy deployments
        not a chat model
        模型不存在
        """,
    ),
    # What a gateway passes on without explaining it.
    _words(
        UpstreamRejectedError,
        "400 403 404 422",
        r"""
        ^provider returned error
        upstream (?:error|request failed|rejected)
        """,
    ),
)
"""In the order in which they are tried."""
