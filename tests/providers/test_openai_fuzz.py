"""Whatever JSON a server sends as a chunk, it ends in events or in one error of ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm import AbstractLLMError, Finished, InternalError, ProviderProtocolError
from abstractllm.providers.openai.answers import AnswerReader
from abstractllm.providers.openai.errors import error_of_body

NAMES = (
    "id object choices index delta content refusal reasoning reasoning_content tool_calls function name arguments "
    "finish_reason stop_reason logprobs token bytes logprob top_logprobs usage prompt_tokens completion_tokens "
    "prompt_tokens_details cached_tokens error code type message param text thinking summary reasoning_details data "
    "thinking_blocks signature extra_content google thought_signature function_call matched_stop x_groq tokens "
    "token_logprobs detail"
).split()
WORDS = ["stop", "length", "tool_calls", "error", "function", "context length", "insufficient_quota", "\ud800", ""]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": SCALARS,
        "delta": st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
        "finish_reason": SCALARS,
        "logprobs": VALUES,
        "stop_reason": SCALARS,
        "matched_stop": VALUES,
        "message": VALUES,
        "text": SCALARS,
        "usage": VALUES,
    },
)
CHUNKS = VALUES | st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=3)}, optional={"usage": VALUES})


@settings(max_examples=200, deadline=None)
@given(st.lists(CHUNKS, max_size=4))
def test_any_chunks_end_in_events_or_in_an_error_of_ours(chunks):
    reader, failure = AnswerReader("HTTP 200"), None
    try:
        for chunk in chunks:
            reader.read(chunk)
        reader.rest()
        assert isinstance(reader.finished(), Finished)
    except AbstractLLMError as error:
        failure = error
    assert not isinstance(failure, InternalError)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_error_body_becomes_an_error_of_ours(body):
    error = error_of_body(body, "in the stream")
    assert not isinstance(error, InternalError | ProviderProtocolError)


def test_no_chunk_is_no_answer():
    with pytest.raises(ProviderProtocolError):
        AnswerReader("HTTP 200").finished()
