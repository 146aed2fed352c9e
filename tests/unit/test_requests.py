"""From the arguments of a call to a checked request."""

import pytest

from abstractllm import (
    ChatMessage,
    Image,
    InvalidRequestError,
    JsonSchemaFormat,
    ParametersPolicy,
    RegexFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolResult,
)
from abstractllm.requests import make_request

USER = ChatMessage(Role.USER, (Text("Hi"),))
PNG = Image(b"\x89PNG", "image/png")


def roles(request):
    return [str(message.role) for message in request.conversation()]


def test_a_prompt_becomes_one_user_message():
    assert make_request("Hi").conversation() == (USER,)


def test_the_system_prompt_replaces_the_conversations_own():
    chat = [{"role": "system", "content": "old"}, {"role": "user", "content": "Hi"}]
    assert make_request(chat).conversation()[0].text == "old"
    replaced = make_request(chat, "new").conversation()
    assert [message.text for message in replaced] == ["new", "Hi"]
    assert roles(make_request(chat, "")) == ["user"]


def test_options_are_recognised_beside_the_generation_parameters():
    request = make_request("Hi", temperature=0, timeout=3, parameters_policy="drop_unsupported", labels={"a": "b"})
    assert request.parameters.temperature == 0
    assert request.timeout == 3
    assert request.parameters_policy is ParametersPolicy.DROP_UNSUPPORTED
    assert request.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("", {}, "prompt"),
        ([], {}, "prompt"),
        (7, {}, "prompt"),
        ("\ud800", {}, "prompt"),
        ("Hi", {"system_prompt": 3}, "system_prompt"),
        ([{"role": "boss", "content": "Hi"}], {}, "chat.messages[0].role"),
        ([{"role": "user"}], {}, "chat.messages[0]"),
        ([{"role": "user", "content": None}], {}, "chat.messages[0].parts"),
        ([{"role": "user", "content": 7}], {}, "chat.messages[0].parts"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], {}, "chat.messages[0].parts[0]"),
        ([USER, ChatMessage(Role.SYSTEM, (Text("late"),))], {}, "chat.messages[1].role"),
        ([ChatMessage(Role.USER, ())], {}, "chat.messages[0].parts"),
        ([USER] * 4097, {}, "chat.messages"),
        ([ChatMessage(Role.ASSISTANT, (PNG,))], {}, "chat.messages[0].parts[0].image"),
        ([ChatMessage(Role.USER, (Image(b"x", "text/html"),))], {}, "chat.messages[0].parts[0].image.mime_type"),
        ([ChatMessage(Role.USER, (Image(b"", "image/png"),))], {}, "chat.messages[0].parts[0].image.data"),
        ([ChatMessage(Role.TOOL, (ToolResult("", "x"),))], {}, "chat.messages[0].parts[0].tool_result.tool_call_id"),
        (
            [ChatMessage(Role.ASSISTANT, (ToolCall("1", "f", "\ud800"),))],
            {},
            "chat.messages[0].parts[0].tool_call.arguments_json",
        ),
        ("Hi", {"tools": [Tool("bad name")]}, "tools[0].name"),
        ("Hi", {"tools": [Tool("f"), Tool("f")]}, "tools[1].name"),
        ("Hi", {"tools": [Tool("f", parameters_json_schema="{")]}, "tools[0].parameters_json_schema"),
        ("Hi", {"tools": ["f"]}, "tools[0]"),
        ("Hi", {"tool_choice": ToolChoice(name="g"), "tools": [Tool("f")]}, "tool_choice.name"),
        ("Hi", {"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}, "tool_choice.mode"),
        ("Hi", {"response_format": JsonSchemaFormat("not json")}, "response_format.json_schema.schema_json"),
        *(
            ("Hi", {"response_format": JsonSchemaFormat(schema)}, "response_format.json_schema.schema_json")
            for schema in (
                '{"const": NaN}',
                '{"maximum": 1e400}',
                '{"const": "\\ud800"}',
                '{"properties": {"\\udfff": {}}}',
            )
        ),
        (
            "Hi",
            {"tools": [Tool("f", parameters_json_schema='{"default": -Infinity}')]},
            "tools[0].parameters_json_schema",
        ),
        ("Hi", {"response_format": RegexFormat("")}, "response_format.regex"),
        ("Hi", {"response_format": "json"}, "response_format"),
        ("Hi", {"timeout": 0}, "timeout"),
        ("Hi", {"timeout": "soon"}, "timeout"),
        ("Hi", {"labels": {"k": "v" * 257}}, "labels.k"),
        ("Hi", {"request_id": "r" * 257}, "request_id"),
        ("Hi", {"provider_options": {str(n): n for n in range(65)}}, "provider_options"),
    ],
)
def test_a_bad_request_is_refused_by_field(prompt, options, field):
    with pytest.raises(InvalidRequestError) as caught:
        make_request(prompt, **options)
    assert caught.value.field == field


def test_an_assistants_turn_without_content_is_an_empty_one():
    request = make_request([USER, {"role": "assistant", "content": None}, USER])
    assert request.messages[1] == ChatMessage(Role.ASSISTANT, ())
