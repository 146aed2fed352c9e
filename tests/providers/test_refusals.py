"""The tables of upstream refusals: what they must not take for something else, and what a fallback makes of them."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm import ContentBlockedError, create_llm
from abstractllm.errors import AbstractLLMError, ErrorReason
from abstractllm.providers.hosted import ErrorReport, classify, read_report, upstream_error
from abstractllm.providers.hosted.refusals import token_numbers
from tests.providers.fake_http import answering, serving
from tests.providers.openai_server import saying

NAMES = "error errors detail message msg code type status param loc metadata raw details reason innererror".split()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def reason(status: int | None, message: str, **error: object) -> str:
    return str(classify(status, read_report({"error": {"message": message, **error}})).kind.default_reason)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024.",
        "max_tokens is too large: 200000. This model supports at most 16384 completion tokens.",
        "max_tokens: 200000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-5",
        "Invalid schema for response_format 'x': schema must have type 'object'",
        "max_tokens exceeds the maximum allowed",
        "the number of output tokens exceeds the limit",
        "Invalid value: 'assistent'. Supported values are: 'system', 'assistant', 'user'.",
        "messages.1: tool_use ids were found without tool_result blocks immediately after",
        "An assistant message with 'tool_calls' must be followed by tool messages. The model got none.",
        "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        "Invalid schema for function 'get_model': 'x' is not valid",
        "Invalid schema for function 'get_overloads': 'x' is not valid",
        "Invalid schema for function 'is_flagged': the property 'my_ratelimit' has no type",
        "Invalid schema for function 'unthrottled_guardrails': 'x' is not valid",
        "The model requires a user message first",
        "Invalid image: could not be decoded",
        "temperature must be at most 2",
        "Missing required parameter: 'messages[0].content'.",
    ],
)
def test_what_is_wrong_with_a_request_is_not_taken_for_the_provider_s_own_reasons(message: str) -> None:
    assert reason(400, message, type="invalid_request_error") == "INVALID_REQUEST"


@pytest.mark.parametrize("status", [401, 402, 404, 408, 409, 429, 500, 502])
def test_moderation_money_and_models_are_believed_only_at_statuses_where_they_come(status: int) -> None:
    expected = reason(status, "no")
    assert reason(status, "the content policy was not checked, since the provider failed first") == expected


@pytest.mark.parametrize(
    ("message", "requested", "limit"),
    [
        ("prompt is too long: 208,310 tokens > 200,000 maximum", 208310, 200000),
        ("request (9001 tokens) exceeds the available context size (8192 tokens), try increasing it", 9001, 8192),
        ("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292", 4292, 4081),
        ("`inputs` must have less than 1024 tokens. Given: 1100", 1100, 1024),
        ("Input length 200 exceeds the maximum allowed input length of 100 tokens.", 200, 100),
        ("Prompt has 900 tokens, but the configured context size is 800 tokens", 900, 800),
        ("the prompt does not fit", None, None),
    ],
)
def test_tokens_are_read_from_the_words(message: str, requested: int | None, limit: int | None) -> None:
    assert token_numbers(message) == (requested, limit)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.none() | st.integers(300, 599))
def test_no_body_and_no_status_breaks_the_tables(body: object, status: int | None) -> None:
    text = json.dumps(body)
    for shape in (body, text, text.encode(), text.encode()[:7]):
        error = upstream_error(read_report(shape), status=status, headers={})
        assert isinstance(error, AbstractLLMError)
        assert error.message
        assert len(error.message) < 1200
        assert error.reason is not ErrorReason.INTERNAL


def test_a_body_that_is_nested_deep_or_huge_is_read_as_far_as_that_is_cheap() -> None:
    deep: object = "the core"
    for _ in range(2000):
        deep = {"error": deep}
    assert read_report(deep).is_structured
    assert len(read_report("x" * 10**6).message) <= 4000
    assert len(read_report([{"message": str(number) * 1000} for number in range(100)]).message) <= 4000
    assert read_report("[" * 100_000).message.startswith("[[")


def test_what_is_said_twice_is_told_once() -> None:
    report = read_report({"message": "no", "error": {"message": "no, not at all", "detail": "no"}})
    assert report.message == "no, not at all"
    assert report == ErrorReport("no, not at all", is_structured=True)


@pytest.mark.parametrize(
    ("status", "body", "kept"),
    [
        (400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error"}}, "MODEL_NOT_FOUND"),
        (400, {"error": "This model's maximum prompt length is 10 but the request contains 20 tokens."}, "CONTEXT"),
        (403, {"code": "x", "error": "Your team doesn't have any credits yet."}, "QUOTA_EXCEEDED"),
        (413, {"error": {"message": "too large", "code": "rate_limit_exceeded"}}, "UPSTREAM_REJECTED"),
        (400, {"error": {"message": "Provider returned error", "metadata": {"raw": "no"}}}, "UPSTREAM_REJECTED"),
        (404, {"error": {"message": "No endpoints found that support tool use"}}, "UNSUPPORTED_FEATURE"),
    ],
)
async def test_a_fallback_goes_on_where_a_provider_refuses_for_its_own_reasons(
    status: int, body: object, kept: str
) -> None:
    async with serving(answering(body, status)) as refusing, serving(saying("Hi")) as willing:
        first = create_llm("openai", model="m", base_url=refusing.url + "/v1")
        second = create_llm("openai", model="m", base_url=willing.url + "/v1")
        async with create_llm("fallback", llms=[first, second]) as llm, first, second:
            answer = await llm.complete_async("Hi")
    assert (answer.text, len(refusing.requests)) == ("Hi", 1)
    assert answer.attempts[0].error_reason.startswith(kept)


async def test_moderation_ends_a_fallback_and_rests_no_llm_of_it() -> None:
    body = {"error": {"message": "m requires moderation. Your input was flagged.", "code": 403}}
    async with serving(answering(body, 403)) as refusing, serving(saying("Hi")) as willing:
        first = create_llm("openai", model="m", base_url=refusing.url + "/v1")
        second = create_llm("openai", model="m", base_url=willing.url + "/v1")
        async with create_llm("fallback", llms=[first, second], failure_threshold=1) as llm, first, second:
            for _ in range(3):
                with pytest.raises(ContentBlockedError):
                    await llm.complete_async("Hi")
    assert (len(refusing.requests), len(willing.requests)) == (3, 0)


@pytest.mark.parametrize(
    "body",
    [
        '\ufeff{"error": {"message": "no such model"}}',
        'data: {"error": {"message": "no such model"}}\n\n',
        'event: error\r\ndata: {"error": "no such model"}\r\n\r\ndata: [DONE]\r\n\r\n',
        '{"error": "no such model"}\n{"done": true}\n',
        '"{\\"error\\": \\"no such model\\"}"',
        b'\xff{"error": "no such model"}',
        "<Error><Code>NotFound</Code><Message>no such model</Message></Error>",
        "<h1>no such model</h1>",
        [["no such model"]],
        {"error": {"error": {"error": "no such model"}}},
        {"error": {"message": {"detail": "no such model"}}},
    ],
)
def test_the_words_are_read_in_whatever_wrapping_they_come(body: object) -> None:
    report = read_report(body)
    assert "no such model" in report.message
    assert "<" not in report.message
    assert classify(400, report).kind.default_reason is ErrorReason.MODEL_NOT_FOUND


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<html><script>a > b</script><style>p {}</style><!-- c --><p>Bad&nbsp;gateway</p></html>", "Bad gateway"),
        ("<html><SCRIPT>a</script ><p>Bad</p><script>never closed", "Bad"),
        ("<html><!-- never closed <p>Bad</p>", ""),
        ("<html><p>Bad</p><!-- a --> <b>gateway</b> <!---->", "Bad gateway"),
    ],
)
def test_of_a_page_what_people_see_is_read(page: str, words: str) -> None:
    assert read_report(page).message == words


@pytest.mark.parametrize(
    "piece",
    [
        "<script>",
        "<!--",
        "<a ",
        "<style",
        "model ",
        "tokens ",
        "1,",
        '{"error":',
        "retry after ",
        "</script",
        "<style></style",
    ],
)
def test_no_body_costs_much(piece: str) -> None:
    before = time.process_time()
    upstream_error(read_report("<html>" + piece * (2**20 // len(piece))), status=400)
    upstream_error(read_report(piece * (2**20 // len(piece))), status=400)
    assert time.process_time() - before < 2
