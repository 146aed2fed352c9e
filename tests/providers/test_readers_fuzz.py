"""Whatever JSON Anthropic or Ollama send, it becomes events that every transport can carry, or one error of ours."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm import (
    AbstractLLMError,
    Finished,
    IncompleteStreamError,
    InternalError,
    ProviderProtocolError,
    ProviderUnavailableError,
)
from abstractllm._core.whole_characters import WholeCharacters
from abstractllm.providers.anthropic.answers import AnswerReader as AnthropicReader
from abstractllm.providers.anthropic.provider import _read as read_event
from abstractllm.providers.ollama.answers import AnswerReader as OllamaReader
from abstractllm.providers.ollama.errors import response_error
from abstractllm.providers.ollama.provider import _read as read_line
from abstractllm.types import TextDelta

EVENTS = (
    "message_start content_block_start content_block_delta content_block_stop message_delta message_stop ping "
    "text_delta thinking_delta signature_delta input_json_delta text thinking redacted_thinking tool_use"
).split()
NAMES = (
    "type index message usage content_block delta text thinking signature data partial_json id name input stop_reason "
    "stop_sequence input_tokens output_tokens cache_read_input_tokens output_tokens_details thinking_tokens content "
    "role tool_calls function arguments logprobs token logprob bytes top_logprobs done done_reason prompt_eval_count "
    "eval_count error code"
).split()
WORDS = [*EVENTS, "end_turn", "stop", "length", "\ud800", "", "context length"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
ERRORS = (ProviderProtocolError, ProviderUnavailableError, IncompleteStreamError)
"""The ends of an answer that cannot be read, that failed, or whose finish reason says nothing known."""
PARTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)
STREAM = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(EVENTS), "index": st.integers(0, 1)},
        optional={"content_block": PARTS, "delta": PARTS, "message": PARTS, "usage": VALUES},
    )
    | VALUES,
    max_size=4,
)


def check(events):
    """That the events are of the right shape, and their text is Unicode once the executor has seen them."""
    characters = WholeCharacters()
    for event in [ready for sent in events for ready in characters.add(sent)]:
        for name in event.__slots__:
            if isinstance(value := getattr(event, name), str):
                value.encode()
        if isinstance(event, TextDelta):
            assert all(isinstance(token.logprob, float) for token in event.logprobs)


def check_finished(finished):
    assert isinstance(finished, Finished)
    (finished,) = WholeCharacters().add(finished)
    finished.stop_sequence.encode()
    for name in finished.usage.__slots__:
        count = getattr(finished.usage, name)
        assert count is None or 0 <= count < 2**63


@settings(max_examples=60, deadline=None)
@given(STREAM)
def test_any_events_of_anthropic_become_events_or_an_error_of_ours(stream):
    reader = AnthropicReader()
    try:
        for event in stream:
            check(read_event(reader, event))
        if (finished := reader.finished()) is not None:
            check_finished(finished)
    except ERRORS:
        pass


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS | st.fixed_dictionaries({"message": PARTS}, optional={"done": VALUES}), max_size=3))
def test_any_lines_of_ollama_become_events_or_an_error_of_ours(lines):
    reader = OllamaReader()
    try:
        for line in lines:
            check(read_line(reader, line))
            if reader.last is not None:
                check_finished(reader.finished(reader.last))
    except ERRORS:
        pass


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([-1, 400, 404, 429, 500, 503]))
def test_any_error_of_ollama_becomes_an_error_of_ours(value, status):
    from ollama import ResponseError

    for text in (json.dumps(value), json.dumps({"error": value})):
        try:
            said = ResponseError(text, status)
        except AttributeError:  # the SDK's own constructor wants an object; see `_reading`
            continue
        error = response_error(said)
        assert isinstance(error, AbstractLLMError)
        assert not isinstance(error, InternalError)
