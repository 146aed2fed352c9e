"""Conversations in the form in which hosted APIs take them back, whoever wrote them."""

import json
import re

import pytest

from abstractllm import ChatMessage, Image, InvalidRequestError, Reasoning, Role, Text, ToolCall, ToolResult
from abstractllm.providers.hosted.history import CallIds, answered_calls, result_text
from abstractllm.validation import json_object, json_object_text

ANTHROPIC = CallIds(r"[A-Za-z0-9_-]{1,64}", 24)
MISTRAL = CallIds(r"[A-Za-z0-9]{9}", 9)
USER = ChatMessage(Role.USER, (Text("Hi"),))


def calling(*calls: ToolCall) -> ChatMessage:
    return ChatMessage(Role.ASSISTANT, calls)


def answering(*results: ToolResult) -> ChatMessage:
    return ChatMessage(Role.TOOL, results)


@pytest.mark.parametrize("call_id", ["call_1", "functions.get:0", "", "é", "a" * 9, "x" * 500, "call 1"])
@pytest.mark.parametrize("ids", [ANTHROPIC, MISTRAL])
def test_an_id_that_the_api_takes_stays_and_every_other_becomes_one_always_the_same(ids, call_id):
    (_, assistant, tool), (_, again, _) = (
        answered_calls([USER, calling(ToolCall(call_id, "f", "{}")), answering(ToolResult(call_id, "1"))], ids)
        for _ in range(2)
    )
    new = assistant.parts[0].id
    assert re.fullmatch(ids.pattern, new)
    assert (new == call_id) is bool(re.fullmatch(ids.pattern, call_id))
    assert (again.parts[0].id, tool.parts[0].tool_call_id) == (new, new)


def test_calls_of_one_id_become_different_ones_and_their_results_follow_in_order():
    one = calling(ToolCall("c", "f", "{}"), ToolCall("c", "g", "{}"))
    results = (answering(ToolResult("c", "of f")), answering(ToolResult("c", "of g")))
    messages = answered_calls([USER, one, *results, one, *results], ANTHROPIC)
    calls = [part for message in messages for part in message.parts if isinstance(part, ToolCall)]
    assert len({call.id for call in calls}) == 4
    by_id = {part.tool_call_id: part.content for m in messages for part in m.parts if isinstance(part, ToolResult)}
    assert [(call.name, by_id[call.id]) for call in calls] == [("f", "of f"), ("g", "of g")] * 2


def test_a_call_without_a_result_gets_one_that_says_so_before_anything_else():
    messages = answered_calls([USER, calling(ToolCall("c", "f", "{}")), USER], ANTHROPIC)
    assert [message.role for message in messages] == ["user", "assistant", "tool", "user"]
    assert messages[2].parts == (ToolResult("c", "The call was not carried out.", is_error=True),)


def test_results_move_directly_behind_their_calls_in_the_calls_order():
    one = calling(ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    late = ChatMessage(Role.USER, (Text("Here:"), ToolResult("b", "2"), ToolResult("a", "1")))
    messages = answered_calls([one, USER, late], ANTHROPIC)
    assert messages == [
        one,
        answering(ToolResult("a", "1"), ToolResult("b", "2")),
        USER,
        ChatMessage(Role.USER, (Text("Here:"),)),
    ]


def test_a_later_call_of_the_same_id_leaves_the_earlier_one_unanswered():
    one = calling(ToolCall("c", "f", "{}"))
    messages = answered_calls([one, USER, one, answering(ToolResult("c", "1"))], ANTHROPIC)
    assert [part.content for m in messages if m.role is Role.TOOL for part in m.parts] == [
        "The call was not carried out.",
        "1",
    ]


def test_several_results_of_one_call_become_one():
    results = (answering(ToolResult("c", "first", is_error=True)), answering(ToolResult("c", "second")))
    messages = answered_calls([calling(ToolCall("c", "f", "{}")), *results, USER], ANTHROPIC)
    assert messages[1:] == [answering(ToolResult("c", "first\n\nsecond")), USER]


@pytest.mark.parametrize("role", [Role.USER, Role.TOOL, Role.SYSTEM])
def test_a_call_in_a_message_that_is_not_the_assistants_is_refused_by_name(role):
    with pytest.raises(InvalidRequestError) as caught:
        answered_calls([USER, ChatMessage(role, (ToolCall("c", "f", "{}"),))], ANTHROPIC)
    assert caught.value.field == "chat.messages[1].parts"


def test_a_result_of_no_call_stays_where_it_is():
    message = answering(ToolResult("c", "1"))
    assert answered_calls([USER, message], ANTHROPIC) == [USER, message]


@pytest.mark.parametrize(("name", "sent"), [("get.weather", "get_weather"), ("", "unnamed"), ("f" * 99, "f" * 64)])
def test_a_name_that_is_no_tools_becomes_one_that_apis_take(name, sent):
    assert answered_calls([calling(ToolCall("c", name, "{}"))], ANTHROPIC)[0].parts[0].name == sent


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_error_without_a_text_gets_one(content):
    call = calling(ToolCall("c", "f", "{}"))
    _, tool = answered_calls([call, answering(ToolResult("c", content, is_error=True))], ANTHROPIC)
    assert tool.parts[0].content == "The tool failed without a message."
    assert result_text(tool.parts[0]) == "Error: The tool failed without a message."


def test_other_parts_and_their_state_stay_as_they_are():
    state = b"anthropic:{}"
    message = ChatMessage(
        Role.ASSISTANT, (Reasoning("hm", state), Text("Hi", state), ToolCall("c", "f", "{", provider_state=state))
    )
    picture = ChatMessage(Role.USER, (Image(b"x", "image/png"),))
    messages = answered_calls([picture, message, answering(ToolResult("c", "1"))], ANTHROPIC)
    assert messages == [picture, message, answering(ToolResult("c", "1"))]


@pytest.mark.parametrize(
    "text",
    [
        '{"city": "Par',
        "[1]",
        "7",
        '"x"',
        "null",
        "no JSON",
        '{"a": NaN}',
        '{"a": 1e999}',
        "[" * 9999,
        '{"a":' * 300,
        "{} {}",
    ],
)
def test_arguments_that_are_no_object_become_one_that_holds_them(text):
    assert json_object(text) == {"INVALID_JSON": text}
    assert json.loads(json_object_text(text)) == {"INVALID_JSON": text}


@pytest.mark.parametrize("text", ['{"a":  1}', '{"a": 9007199254740993, "b": [true, null]}', "{}"])
def test_arguments_that_are_an_object_stay_as_they_were_written(text):
    assert json_object_text(text) == text
    assert json_object(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", "  "])
def test_no_arguments_are_an_empty_object(text):
    assert (json_object(text), json_object_text(text)) == ({}, "{}")


def test_surrogates_that_escapes_spell_do_not_get_into_an_object():
    assert json_object('{"a\\ud800": ["\\udfff", "\\ud83d\\ude00"]}') == {"a\ufffd": ["\ufffd", "\U0001f600"]}
