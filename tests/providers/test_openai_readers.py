"""An answer is the same whether it comes whole or streamed, and keeps what its API wants back on the next turn."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abstractllm.providers.openai.answers import AnswerReader
from abstractllm.providers.openai.wire_state import WireState
from abstractllm.types import ChatMessage, Finished, Reasoning, Text, ToolCall


def read_stream(*deltas: dict[str, Any], finish: str = "stop") -> Finished:
    """The last event of an answer that is streamed."""
    reader = AnswerReader("HTTP 200", server="mark", tools=["f", "g"])
    for delta in deltas:
        reader.read({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    reader.read({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    reader.rest()
    return reader.finished()


def read_whole(message: dict[str, Any], finish: str = "stop") -> Finished:
    """The last event of an answer that comes in one piece."""
    reader = AnswerReader("HTTP 200", server="mark", tools=["f", "g"])
    reader.read_whole({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})
    reader.rest()
    return reader.finished()


def message_of(finished: Finished) -> ChatMessage:
    assert finished.message is not None
    return finished.message


def states(finished: Finished) -> list[tuple[type, WireState | None]]:
    """Each part's kind and state."""
    kinds = [(type(part), WireState.of(part.provider_state)) for part in message_of(finished).parts]
    assert all(state is None or state.server == "mark" for _, state in kinds)
    return kinds


TEXTS = st.text(min_size=1, max_size=6)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "function": st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["f", "g"]),
                    "arguments": st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2).map(json.dumps),
                }
            )
        },
        optional={"extra_content": st.just({"google": {"thought_signature": "sig"}})},
    ),
    max_size=3,
)
MESSAGES = st.fixed_dictionaries(
    {"content": st.none() | TEXTS | st.lists(TEXTS.map(lambda text: {"type": "text", "text": text}), max_size=3)},
    optional={
        "reasoning_content": TEXTS,
        "reasoning": TEXTS,
        "reasoning_details": st.lists(TEXTS.map(lambda text: {"type": "reasoning.text", "text": text}), max_size=1),
        "tool_calls": CALLS,
    },
)


def halves(text: str) -> list[str]:
    return [piece for piece in (text[: len(text) // 2], text[len(text) // 2 :]) if piece]


def deltas_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A whole message as it is streamed, texts and arguments in pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for name in ("reasoning_content", "reasoning"):
        if name == "reasoning_content" or "reasoning_content" not in message:
            deltas += [{name: piece} for piece in halves(message.get(name, ""))]
    for item in message.get("reasoning_details", ()):
        deltas += [{"reasoning_details": [item | {"text": piece}]} for piece in halves(item["text"])]
    content = message["content"]
    deltas += [{"content": piece} for piece in (halves(content) if isinstance(content, str) else [content])]
    for place, call in enumerate(message.get("tool_calls", ())):
        first = copy.deepcopy(call)
        first["function"]["arguments"] = ""
        deltas.append({"tool_calls": [first | {"index": place}]})
        deltas += [
            {"tool_calls": [{"index": place, "function": {"arguments": piece}}]}
            for piece in halves(call["function"]["arguments"])
        ]
    return deltas


def described(finished: Finished) -> list[Any]:
    """The finish reason and the parts, without the ids that are made up."""
    parts = [
        (part.name, part.arguments_json, part.provider_state) if isinstance(part, ToolCall) else part
        for part in message_of(finished).parts
    ]
    return [finished.finish_reason, *parts]


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_a_whole_answer_is_the_streamed_one(message):
    # Text and thoughts that begin in one delta and go on in another are told by the field alone.
    if "reasoning_details" in message and ("reasoning_content" in message or "reasoning" in message):
        del message["reasoning_details"]
    assert described(read_whole(message)) == described(read_stream(*deltas_of(message)))


def test_reasoning_goes_back_in_the_field_that_it_came_in():
    for name in ("reasoning_content", "reasoning", "reasoning_text"):
        finished = read_stream({name: "h"}, {name: "m"}, {"content": "Hi"})
        assert states(finished) == [(Reasoning, WireState("mark", text_field=name)), (Text, None)]
        assert message_of(finished).parts[0] == Reasoning("hm", WireState("mark", text_field=name).to_bytes())


def test_details_of_openrouter_go_back_whole_and_in_their_order():
    finished = read_stream(
        {"reasoning": "h", "reasoning_details": [{"type": "reasoning.text", "text": "h", "index": 0, "format": "x"}]},
        {"reasoning": "m", "reasoning_details": [{"type": "reasoning.text", "text": "m", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "sig", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "!", "index": 1}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz", "id": "r1", "index": 2}]},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
    )
    details = [
        {"type": "reasoning.text", "text": "hm", "index": 0, "format": "x", "signature": "sig"},
        {"type": "reasoning.text", "text": "!", "index": 1},
        {"type": "reasoning.encrypted", "data": "xyz", "id": "r1", "index": 2},
    ]
    assert states(finished) == [
        (Reasoning, WireState("mark", message={"reasoning_details": details})),
        (ToolCall, None),
    ]


def test_details_without_any_text_go_back_with_the_first_part_or_alone():
    details = [{"type": "reasoning.encrypted", "data": "xyz"}]
    state = WireState("mark", message={"reasoning_details": details})
    assert states(read_whole({"content": "Hi", "reasoning_details": details})) == [(Text, state)]
    assert states(read_whole({"content": None, "reasoning_details": details})) == [(Reasoning, state)]


def test_thinking_parts_of_mistral_go_back_as_they_came():
    finished = read_stream(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}], "closed": True}]},
        {"content": [{"type": "thinking", "thinking": [], "signature": "sig"}]},
        {"content": [{"type": "text", "text": "Hi"}]},
        {"content": [{"type": "thinking", "thinking": "so"}]},
    )
    first = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True, "signature": "sig"}
    assert states(finished) == [
        (Reasoning, WireState("mark", content=[first])),
        (Text, None),
        (Reasoning, WireState("mark", content=[{"type": "thinking", "thinking": "so"}])),
    ]


def test_blocks_of_litellm_go_back_with_their_signature():
    finished = read_stream(
        {"reasoning_content": "h", "thinking_blocks": [{"type": "thinking", "thinking": "h", "signature": None}]},
        {"reasoning_content": "m", "thinking_blocks": [{"type": "thinking", "thinking": "m", "signature": ""}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "sig"}]},
        {"content": "Hi"},
    )
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "sig"}]
    assert states(finished) == [(Reasoning, WireState("mark", message={"thinking_blocks": blocks})), (Text, None)]


def test_gemini_s_signatures_go_back_on_the_call_and_on_the_message():
    signature = {"google": {"thought_signature": "sig"}}
    finished = read_stream(
        {"tool_calls": [{"index": 0, "id": "c1", "extra_content": signature, "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}]},
    )
    assert states(finished) == [(ToolCall, WireState("mark", call={"extra_content": signature})), (ToolCall, None)]
    finished = read_stream({"content": "Hi"}, {"content": "", "extra_content": signature})
    assert states(finished) == [(Text, WireState("mark", message={"extra_content": signature}))]


def test_an_empty_thought_beside_a_call_goes_back_empty_and_elsewhere_not_at_all():
    call = {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}]}
    state = WireState("mark", message={"reasoning_content": ""})
    assert states(read_stream({"reasoning_content": "", "content": None}, call)) == [(ToolCall, state)]
    assert states(read_stream({"reasoning_content": None, "content": None}, call)) == [(ToolCall, None)]
    assert states(read_stream({"reasoning_content": "", "content": "Hi"})) == [(Text, None)]


@pytest.mark.parametrize("message", [{"content": "Hi"}, {"content": "Hi", "annotations": [], "audio": None}])
def test_plain_text_keeps_nothing(message):
    assert message_of(read_whole(message)).parts == (Text("Hi"),)
