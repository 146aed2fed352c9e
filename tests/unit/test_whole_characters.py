"""Characters whose halves come in different pieces of an answer."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abstractllm._core.whole_characters import WholeCharacters
from abstractllm.types import (
    ChatMessage,
    Finished,
    FinishReason,
    Reasoning,
    ReasoningDelta,
    Role,
    Text,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)
from abstractllm.validation import replace_surrogates

END = Finished(FinishReason.STOP)


def passed_on(*events):
    characters = WholeCharacters()
    return [ready for event in events for ready in characters.add(event)]


def texts(kind, *pieces):
    return [event.text for event in passed_on(*map(kind, pieces), END) if isinstance(event, kind)]


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta])
def test_the_halves_of_a_character_come_together(kind):
    assert texts(kind, "a\ud83d", "\ude00b") == ["a", "\U0001f600b"]
    assert texts(kind, "\ud83d", "", "\ude00\ud83d", "\ude01") == ["", "", "\U0001f600", "\U0001f601"]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d"], "a\ufffd"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
        (["\ud83d\ud83d", "\ude00"], "\ufffd\U0001f600"),
    ],
)
def test_a_half_alone_is_replaced(pieces, text):
    assert "".join(texts(TextDelta, *pieces)) == text


def test_a_half_stays_in_its_own_text_and_before_what_follows():
    events = passed_on(ReasoningDelta("\ud83d"), TextDelta("\ude00"), END)
    assert events == [ReasoningDelta(""), ReasoningDelta("\ufffd"), TextDelta("\ufffd"), END]


def test_arguments_are_put_together_by_call():
    events = passed_on(
        ToolCallDelta(0, "\ud800", "f", '{"a":"\ud83d'),
        ToolCallDelta(0, arguments_fragment='\ude00"}'),
        ToolCallDelta(1, "c", "g", "\ud83d"),
        ToolCallDelta(2, "d", "h", "{}"),
    )
    assert events == [
        ToolCallDelta(0, "\ufffd", "f", '{"a":"'),
        ToolCallDelta(0, arguments_fragment='\U0001f600"}'),
        ToolCallDelta(1, "c", "g", ""),
        ToolCallDelta(1, arguments_fragment="\ufffd"),
        ToolCallDelta(2, "d", "h", "{}"),
    ]


def test_the_message_at_the_end_is_unicode_and_keeps_its_state():
    torn = "\ud83d" + "\ude00" + "\ud83d"
    message = ChatMessage(Role.ASSISTANT, (Reasoning(torn, b"r"), Text(torn), ToolCall("c", torn, torn, b"s")))
    (end,) = passed_on(Finished(FinishReason.STOP, torn, message=message))
    text = "\U0001f600\ufffd"
    assert end.stop_sequence == text
    assert end.message.parts == (Reasoning(text, b"r"), Text(text), ToolCall("c", text, text, b"s"))


def test_log_probabilities_stay_with_their_piece():
    logprobs = (TokenLogprob(1, "x", b"x", -0.5, ()),)
    assert passed_on(TextDelta("\ud83d", logprobs)) == [TextDelta("", logprobs)]


PIECES = st.lists(
    st.tuples(
        st.sampled_from([TextDelta, ReasoningDelta]), st.text(st.sampled_from("aé\ud83d\ude00\U0001f600"), max_size=3)
    ),
    max_size=8,
)


@given(PIECES)
def test_however_it_is_cut_the_text_is_that_of_the_whole(pieces):
    events = passed_on(*(kind(text) for kind, text in pieces), END)
    joined = [(kind, "".join(event.text for event in group)) for kind, group in groupby(events[:-1], type)]
    whole = [
        (kind, replace_surrogates("".join(text for _, text in group)))
        for kind, group in groupby(pieces, lambda piece: piece[0])
    ]
    assert joined == whole
